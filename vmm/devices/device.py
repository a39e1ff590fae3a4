"""The interface of a device, so that no other module has to know the kinds.

A new kind is a module beside this one and a setting of the profile, from which `vmm.devices.usual` makes it.
"""

from __future__ import annotations

import abc
import contextlib
import enum
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Final

import attrs

from vmm.words.machines import AgentKind

OpenInput = Callable[[Path], AbstractContextManager[int]]
"""Opens a file for QEMU to read, within the block, as a descriptor that QEMU's user may reopen. Raises OSError."""


class Bus(enum.Enum):
    """A device's position on the command line: devices get free slots in the order in which they are plugged in."""

    BOARD = "board"
    """Not on the PCI bus; before the PCI bridges."""
    PCI = "pci"
    """Takes a free slot after the bridges."""


@attrs.frozen(kw_only=True)
class Attachment:
    """A device of one QEMU process: its options, and the descriptors that they name."""

    options: tuple[str, ...]
    inherited: tuple[int, ...] = ()
    """QEMU uses these as they are passed."""
    readable: tuple[int, ...] = ()
    """QEMU is passed these, too, and reopens them."""
    writable: tuple[int, ...] = ()
    """Likewise, for writing. From then on they are QEMU's own."""


MAX_SOCKET_NAME: Final = len("agent.sock")
"""Bytes of a socket's name. A service checks at its start that the longest fits into the path of any VM's directory."""


class Device(abc.ABC):
    """One device of a machine. A frozen record: machines whose devices are equal are interchangeable.

    A device keeps its state in the VM's directory, which goes with the VM, or in a descriptor, which the kernel closes
    when QEMU is dead. So an adopted VM, whose spec is unknown, leaves nothing behind either.
    """

    setting: ClassVar[str]
    """The profile's setting that requests it; errors and mismatches name it."""
    bus: ClassVar[Bus]
    sockets: ClassVar[tuple[str, ...]] = ()
    """Names of its Unix sockets in the VM's directory, which limit the length of that path."""

    def __init_subclass__(cls) -> None:
        too_long = [name for name in cls.sockets if len(name) > MAX_SOCKET_NAME]
        if too_long:
            raise TypeError(f"{cls.__name__}.sockets: {too_long[0]} has more than {MAX_SOCKET_NAME} characters")

    @property
    def kernel_parameters(self) -> str:
        """Its parameters for the guest's kernel."""
        return ""

    @property
    def agent(self) -> AgentKind:
        """The agent that is reached through it: NOOP for none, or for one that only the VM's taker asks."""
        return AgentKind.NOOP

    def check(self, open_input: OpenInput) -> None:  # noqa: B027 - most kinds need nothing of the host
        """Raises MissingFileError, naming `setting`, if the host lacks something, or QEMU's user may not use it."""

    @abc.abstractmethod
    def open(self, directory: Path, *, open_input: OpenInput, opened: contextlib.ExitStack) -> Attachment:
        """Makes it ready for one QEMU. `directory` is the VM's; `opened` closes our descriptors once QEMU has its own.

        Raises OSError, MissingFileError, SpecError.
        """

    @abc.abstractmethod
    def fingerprint(self) -> tuple[str, ...]:
        """The parts that make two machines different: its options without those of the single VM, and hashes of its
        files' content. May block while reading the files. Raises OSError.
        """

    def for_template(self, directory: Path) -> Device:  # noqa: ARG002 - most kinds keep nothing in a template
        """The device of a template's VM, which keeps the files that clones need in the template's directory."""
        return self

    def for_clone(self, template: Path) -> Device:  # noqa: ARG002 - likewise
        """The device of a clone of the template in that directory, with its own copy of everything writable."""
        return self
