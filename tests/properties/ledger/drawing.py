"""What the machine may draw: a history that it would never come to proves nothing of what it finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.properties.ledger.histories import Historic, History, details, strategies_of

DRAWS: Final = settings(
    max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def drawable(machine: type[Historic]) -> frozenset[str]:
    """All details that come up when each rule is drawn a few hundred times."""
    seen: set[str] = set()
    for rule, strategies in strategies_of(machine).items():
        _draw(rule, strategies, seen)
    return frozenset(seen)


def _draw(rule: str, strategies: Mapping[str, st.SearchStrategy[Any]], seen: set[str]) -> None:
    @DRAWS
    @given(st.fixed_dictionaries(dict(strategies)))
    def draw(arguments: dict[str, Any]) -> None:
        seen.update(_told(rule, arguments))

    draw()


def details_of(history: History) -> Iterator[str]:
    for step in history:
        yield from _told(step.rule, step.arguments)


def _told(rule: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    for detail in details(arguments):
        yield f"{rule}: {detail}"
