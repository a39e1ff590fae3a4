"""The version of an installed QEMU, and the oldest that works."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import attrs
import trio

from vmm.errors import MissingFileError, SpecError
from vmm.qemu.process import qemu_environment

QEMU_REMEDY = "install it with `apt-get install qemu-system-x86`, or correct the path"

_VERSION_LINE = re.compile(r"^QEMU emulator version (\d+)\.(\d+)\.(\d+)(?: \((.*)\))?", re.MULTILINE)


@attrs.frozen(order=True)
class QemuVersion:
    """A QEMU release; `package` is the distributor's name for it and does not count in comparisons."""

    major: int
    minor: int
    micro: int = 0
    package: str = attrs.field(default="", eq=False, order=False)

    def __str__(self) -> str:
        release = f"{self.major}.{self.minor}.{self.micro}"
        return f"{release} ({self.package})" if self.package else release


MINIMUM_VERSION = QemuVersion(7, 2)
"""The oldest on which templates (`x-ignore-shared`, state through a descriptor) are tested."""


def parse_version(output: str) -> QemuVersion:
    """The version in the output of `qemu-system-x86_64 --version`. Raises ValueError if it has none."""
    if not (match := _VERSION_LINE.search(output)):
        raise ValueError(f"its output has no QEMU version: {output[:200]!r}")
    major, minor, micro, package = match.groups()
    return QemuVersion(int(major), int(minor), int(micro), package or "")


async def detect_version(qemu: Path) -> QemuVersion:
    """Asks the program for its version. Killed if cancelled; no time limit of its own.

    Raises MissingFileError if it is not installed, SpecError if it is not QEMU or is older than MINIMUM_VERSION.
    """
    if shutil.which(qemu) is None:
        raise MissingFileError(field="qemu", path=qemu, remedy=QEMU_REMEDY)
    try:
        done = await trio.run_process(
            [str(qemu), "--version"],
            capture_stdout=True,
            stderr=subprocess.DEVNULL,
            check=False,
            env=qemu_environment(),
            deliver_cancel=_kill,
        )
        version = parse_version(done.stdout.decode("utf-8", "replace"))
    except (OSError, ValueError) as error:
        raise SpecError(
            field="qemu", value=str(qemu), reason=f"is not QEMU's system emulator ({error}); {QEMU_REMEDY}"
        ) from error
    if version < MINIMUM_VERSION:
        raise SpecError(
            field="qemu",
            value=str(qemu),
            reason=f"is version {version}, older than {MINIMUM_VERSION}; install a newer QEMU",
        )
    return version


async def _kill(process: trio.Process) -> None:
    process.kill()
