"""Why a QEMU has ended, from what it said last, and what its guest's kernel did."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

SHUTDOWN: Final = "SHUTDOWN"
"""QEMU's event. Its `reason` is of QAPI's ShutdownCause."""

_MAX_TEXT: Final = 200
"""Of a guest's words. They are evidence, and the guest may say what it likes."""

_PANIC: Final = re.compile(r"Kernel panic - not syncing: (.*)")
_NO_MEMORY: Final = re.compile(r"out of memory|deadlocked on memory", re.IGNORECASE)

_OTHERS: Final = {
    "guest-shutdown": "its guest powered off",
    "host-signal": "a signal of the host asked it to end",
    "host-error": "QEMU had an error that it cannot go on after",
    "host-ui": "somebody closed its window",
}
"""What asks for no look at the console. A `quit` is not among them: who sends one knows why."""


def cause(shutdown: Mapping[str, Any] | None, *, console: str) -> str:
    """In words, without an end; empty if QEMU did not say.

    `shutdown` is the data of its event. On a machine that does not restart a guest that panics resets it, as one that
    is told to; the kernel's last line on the console tells the two apart.
    """
    reason = None if shutdown is None else shutdown.get("reason")
    if reason not in ("guest-reset", "guest-panic"):
        return _OTHERS.get(str(reason), "")
    panics = _PANIC.findall(console)
    if not panics:
        return "its guest was reset" if reason == "guest-reset" else "its guest's kernel panicked"
    said = "".join(character if character.isprintable() else "?" for character in panics[-1].strip()[:_MAX_TEXT])
    if _NO_MEMORY.search(said):
        return f"its guest ran out of memory, and its kernel panicked: {said}"
    return f"its guest's kernel panicked: {said}"
