"""Makes a history short and plain, as long as what is to be seen in it is seen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import attrs

from tests.properties.ledger.histories import Historic, History, Step, default_of

T = TypeVar("T")

Holds = Callable[[History], bool]


def shortened(machine: type[Historic], history: History, *, holds: Holds) -> History:
    """Leaves out what can be, and makes the rest plain, until nothing is left to do."""
    before: History = ()
    while list(history) != list(before):
        before = history
        for number in reversed(range(len(history))):
            rest = _replaced(history, number)
            history = rest if holds(rest) else _with_a_plain_step(machine, history, number, holds=holds)
    return history


def _with_a_plain_step(machine: type[Historic], history: History, number: int, *, holds: Holds) -> History:
    candidates = _plainer_steps(machine, history[number])
    while (step := next(candidates, None)) is not None:
        changed = _replaced(history, number, step)
        if holds(changed):
            history, candidates = changed, _plainer_steps(machine, step)
    return history


def _plainer_steps(machine: type[Historic], step: Step) -> Iterator[Step]:
    if any(step.picks):
        yield attrs.evolve(step, picks=())
    plain = inspect.signature(getattr(machine, step.rule)).parameters
    for name, value in step.arguments.items():
        default = plain[name].default
        others = [] if default in (inspect.Parameter.empty, value) else [default]
        for other in (*others, *_plainer(value)):
            yield attrs.evolve(step, arguments={**step.arguments, name: other})


def _plainer(value: Any) -> Iterator[Any]:
    """By one detail each."""
    if isinstance(value, list):
        for number in reversed(range(len(value))):
            if len(value) > 1:
                yield _replaced(value, number)
            for other in _plainer(value[number]):
                yield _replaced(value, number, other)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            own = getattr(value, field.name)
            default = default_of(field)
            others = [] if default in (attrs.NOTHING, own) else [default]
            for other in (*others, *_plainer(own)):
                yield attrs.evolve(value, **{field.name: other})


def _replaced(items: Sequence[T], number: int, *by: T) -> list[T]:
    return [*items[:number], *by, *items[number + 1 :]]
