"""Why a QEMU has ended, from its last event and the last lines of its guest's kernel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

SHUTDOWN: Final = "SHUTDOWN"
"""QEMU's event. Its `reason` is a QAPI ShutdownCause."""

_MAX_TEXT: Final = 200
"""Characters of a guest's message, which is untrusted."""

_PANIC: Final = re.compile(r"Kernel panic - not syncing: (.*)")
_NO_MEMORY: Final = re.compile(r"out of memory|deadlocked on memory", re.IGNORECASE)

_OTHERS: Final = {
    "guest-shutdown": "its guest powered off",
    "host-signal": "a signal on the host asked it to end",
    "host-error": "QEMU had a fatal error",
    "host-ui": "its window was closed",
}
"""Causes that need no look at the console. A `quit` is not among them: its sender knows the reason."""


def cause(shutdown: Mapping[str, Any] | None, *, console: str) -> str:
    """The cause in words, without a full stop; empty if QEMU did not report one.

    `shutdown` is the data of its event. A guest that panics resets the machine, like one that reboots; the kernel's
    last line on the console tells the two apart.
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
