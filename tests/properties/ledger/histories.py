"""What happened to a ledger, step by step, so that it can be kept, read and made to happen again without a search."""

from __future__ import annotations

import enum
import functools
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.properties.ledger.invariants import ViolationError

T = TypeVar("T")

_STRATEGIES: Final = "_strategies"


@attrs.frozen
class Step:
    """A rule of the machine, and what was drawn for it. What is left out is as the rule has it by default."""

    rule: str
    arguments: Mapping[str, Any]
    picks: tuple[int, ...] = ()
    """Which of those that there were then was chosen, by number; the first where nothing is said."""


History = Sequence[Step]


def step(rule: str, *, picks: tuple[int, ...] = (), **arguments: Any) -> Step:
    return Step(rule, arguments, picks)


class StaleHistoryError(Exception):
    """A history cannot happen any more as it was kept."""


class Historic(RuleBasedStateMachine):
    """A machine that knows what has happened to it, and to which it can happen again."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[Step] = []
        self.violation: ViolationError | None = None

    def choose(self, data: st.DataObject, candidates: Sequence[T]) -> T:
        number = data.draw(st.sampled_from(range(len(candidates))))
        if number >= len(candidates):
            raise StaleHistoryError(f"number {number} was chosen; now there are {len(candidates)}")
        last = self.history[-1]
        self.history[-1] = attrs.evolve(last, picks=(*last.picks, number))
        return candidates[number]

    @classmethod
    def replay(cls, history: History) -> None:
        """Does it all again, and ends as every history does. Raises ViolationError, or StaleHistoryError."""
        machine = cls()
        for one in history:
            happen = getattr(machine, one.rule, None)
            strategies = getattr(happen, _STRATEGIES, None)
            if happen is None or strategies is None:
                raise StaleHistoryError(f"{one.rule} is no rule")
            chooser = {"data": _Picks(one.picks)} if "data" in strategies else {}
            try:
                inspect.signature(happen).bind(**chooser, **one.arguments)
            except TypeError as error:
                raise StaleHistoryError(f"{one.rule}: {error}") from error
            happen(**chooser, **one.arguments)
        machine.teardown()


def begins(**strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """`initialize`, written down."""
    decorate: Any = initialize(**strategies)  # type: ignore[call-overload]
    return lambda method: decorate(_written_down(method, strategies, first=True))


def happens(**strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """`rule`, written down."""
    decorate: Any = rule(**strategies)  # type: ignore[call-overload]
    return lambda method: decorate(_written_down(method, strategies))


def _written_down(
    method: Callable[..., None], strategies: Mapping[str, st.SearchStrategy[Any]], *, first: bool = False
) -> Callable[..., None]:
    @functools.wraps(method)
    def noted(machine: Historic, **arguments: Any) -> None:
        if first is bool(machine.history):
            raise StaleHistoryError(f"{method.__name__} is {'not ' * (not first)}how it begins")
        drawn = {name: value for name, value in arguments.items() if name != "data"}
        machine.history.append(Step(method.__name__, drawn))
        try:
            method(machine, **arguments)
        except ViolationError as violation:
            machine.violation = violation
            raise

    setattr(noted, _STRATEGIES, strategies)
    return noted


@attrs.define(eq=False)
class _Picks:
    """In place of Hypothesis' `data`."""

    _numbers: tuple[int, ...]

    def draw(self, _strategy: object) -> int:
        number, self._numbers = self._numbers[0] if self._numbers else 0, self._numbers[1:]
        return number


# -- what may be drawn ---------------------------------------------------------------------------------------------


def strategies_of(machine: type[Historic]) -> dict[str, Mapping[str, st.SearchStrategy[Any]]]:
    """Of each rule, but for what depends on what has happened."""
    return {
        name: {name: strategy for name, strategy in getattr(method, _STRATEGIES).items() if name != "data"}
        for name, method in inspect.getmembers(machine)
        if hasattr(method, _STRATEGIES)
    }


def details(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Each simple value in it, and where it stands."""
    for name, value in arguments.items():
        yield from _details(name, value)


def _details(where: str, value: Any) -> Iterator[str]:
    if attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _details(f"{where}.{field.name}", getattr(value, field.name))
    elif isinstance(value, list):
        for each in value:
            yield from _details(where, each)
    else:
        yield f"{where} = {value!r}"


# -- as text -------------------------------------------------------------------------------------------------------


def written(machine: type[Historic], history: History) -> Iterator[str]:
    """Python, an expression for each step, without what goes without saying."""
    for one in history:
        plain = inspect.signature(getattr(machine, one.rule)).parameters
        said = [
            f"{name}={_value(one.arguments[name])}"
            for name, parameter in plain.items()
            if name in one.arguments and one.arguments[name] != parameter.default
        ]
        picks = [f"picks={one.picks}"] if any(one.picks) else []
        yield f"step({', '.join([_value(one.rule), *said, *picks])})"


def _value(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if value == math.inf:
        return "math.inf"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if attrs.has(type(value)):
        return f"{type(value).__name__}({', '.join(_fields(value))})"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _fields(value: Any) -> Iterator[str]:
    for field in attrs.fields(type(value)):
        given = getattr(value, field.name)
        if given != default_of(field):
            yield f"{field.name}={_value(given)}"


def default_of(field: attrs.Attribute[Any]) -> Any:
    """NOTHING where there is none."""
    default: Any = field.default
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]
