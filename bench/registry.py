"""All experiments, by name, and the choice among them."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

import attrs

from bench.case import Case, Experiment


@attrs.frozen
class Registry:
    """Experiments in the order in which they run. Raises ValueError if a case's name comes twice."""

    experiments: tuple[Experiment, ...]

    def __attrs_post_init__(self) -> None:
        seen: set[str] = set()
        for case in self.cases():
            if case.name in seen:
                raise ValueError(f"two cases are called {case.name}")
            seen.add(case.name)

    def cases(self) -> Iterable[Case]:
        return (case for experiment in self.experiments for case in experiment.cases)

    def select(self, patterns: Sequence[str]) -> frozenset[str]:
        """The names of the cases that match one of the patterns; of all cases without patterns.

        A pattern has * and ? as in file names, and matches a case's name, its experiment's, or its kind's. Raises
        LookupError naming a pattern that matches none.
        """
        if not patterns:
            return frozenset(case.name for case in self.cases())
        chosen: set[str] = set()
        for pattern in patterns:
            found = {
                case.name
                for experiment in self.experiments
                for case in experiment.cases
                if any(
                    fnmatch.fnmatchcase(name, pattern) for name in (case.name, experiment.name, experiment.kind.value)
                )
            }
            if not found:
                raise LookupError(
                    f"no case, experiment or kind is called {pattern!r}; `scripts/bench --list` shows them"
                )
            chosen |= found
        return frozenset(chosen)
