"""The serial console: the guest's output, in a log of the VM's directory. It also identifies a VM's QEMU process."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

import attrs

from vmm.devices.device import Attachment, Bus, Device, OpenInput
from vmm.devices.options import options
from vmm.logs import new_log
from vmm.places import place_of

_FD_SET: Final = 0

_PLACE: Final = re.compile(r"@\d+:\d+$")
"""Ends the name of a console. VMs of older versions do not have it."""


def console_log(directory: Path) -> Path:
    """The log of the serial console of the VM with that directory."""
    return directory / "console.log"


def names_console(argv: Sequence[str], log: Path) -> bool:
    """Whether this is the command line of the VM with that console: it names the VM's directory, once."""
    marker = "," + options(opaque=log)
    return any(_PLACE.sub("", argument).endswith(marker) for argument in argv)


@attrs.frozen(kw_only=True)
class Console(Device):
    """Every machine has one: a VM's process is found by it."""

    setting: ClassVar[str] = "console"
    bus: ClassVar[Bus] = Bus.BOARD

    def open(self, directory: Path, *, open_input: OpenInput, opened: contextlib.ExitStack) -> Attachment:  # noqa: ARG002
        log = console_log(directory)
        return self.attached(opened.enter_context(new_log(log)), log=log, place=place_of(directory))

    def attached(self, fd: int, *, log: Path, place: str) -> Attachment:
        """`fd` is open for appending. QEMU does not open `log`, which only identifies the process; `place` is
        `vmm.places.place_of` its directory.
        """
        return Attachment(
            options=(
                *("-add-fd", options(fd=fd, set=_FD_SET, opaque=f"{log}@{place}")),
                *("-chardev", options("file", id="console", path=f"/dev/fdset/{_FD_SET}", append="on")),
                *("-serial", "chardev:console"),
            ),
            inherited=(fd,),
        )

    def fingerprint(self) -> tuple[str, ...]:
        return self.attached(0, log=Path("console"), place="").options
