"""python -m tests.properties.ledger [FAULT ...]: keeps a history in `kept.py` for each fault that has none that fits.

For those that are named it looks anew.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pool.ledger.book import Ledger
from tests.properties.ledger.broken_ledgers import faults
from tests.properties.ledger.drawing import details_of, drawable
from tests.properties.ledger.histories import History, StaleHistoryError, written
from tests.properties.ledger.kept import KEPT
from tests.properties.ledger.machine import LedgerMachine
from tests.properties.ledger.search import notices, search
from tests.properties.ledger.shortening import shortened

FILE: Final = Path(__file__).with_name("kept.py")

HEAD: Final = '''"""Histories in which the checks notice the faults that they are there for, by check and fault.

Found and shortened by `python -m tests.properties.ledger`, which also looks for those that do not fit any more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from vmm.words.backoff import Backoff
from vmm.words.kinds import ProducerKind
from vmm.words.life import VmState
from pool.ledger.demand import AdaptiveSize
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from tests.properties.ledger.histories import History, step

KEPT: Final[Mapping[str, History]] = {
'''


class Keeper:
    def __init__(self) -> None:
        self._drawable = drawable(LedgerMachine)

    def keep(self, check: str, ledger: type[Ledger], history: History | None) -> History:
        if history is not None and self._shows(check, ledger, history):
            return history
        found = search(ledger, check=check)
        return shortened(LedgerMachine, found, holds=lambda shorter: self._shows(check, ledger, shorter))

    def _shows(self, check: str, ledger: type[Ledger], history: History) -> bool:
        """The fault is noticed, a sound ledger bears the same, and the machine may come to it."""
        try:
            LedgerMachine.replay(history)
            return notices(ledger, history, check=check) and self._drawable.issuperset(details_of(history))
        except StaleHistoryError:
            return False


def main(*names: str) -> None:
    keeper = Keeper()
    kept = {}
    for name, (check, ledger) in faults().items():
        kept[name] = keeper.keep(check, ledger, None if name in names else KEPT.get(name))
        sys.stderr.write(f"{name}: {len(kept[name])} steps\n")
    FILE.write_text("".join(_file(kept)))
    for command in (["format"], ["check", "--fix"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", str(FILE)], check=True)


def _file(kept: Mapping[str, History]) -> Iterator[str]:
    yield HEAD
    for name, history in kept.items():
        yield f'    "{name}": [{", ".join(written(LedgerMachine, history))}],\n'
    yield "}\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
