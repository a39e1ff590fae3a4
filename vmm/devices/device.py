"""What a kind of device says of itself, so that nobody else has to know the kinds.

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
"""A file that QEMU is to read, open within the block, as a descriptor that its user may open anew. Raises OSError."""


class Bus(enum.Enum):
    """Where on the command line a device stands: what is plugged in first has the first place that is free."""

    BOARD = "board"
    """Not on a bus of ours; before the PCI bridges."""
    PCI = "pci"
    """Takes what place is free after the bridges."""


@attrs.frozen(kw_only=True)
class Attachment:
    """A device as one QEMU has it: its options, and the descriptors that these name."""

    options: tuple[str, ...]
    inherited: tuple[int, ...] = ()
    """QEMU uses these as they are passed."""
    readable: tuple[int, ...] = ()
    """It is passed these, too, and opens them anew."""
    writable: tuple[int, ...] = ()
    """Idem, for writing. They are its own from then on."""


MAX_SOCKET_NAME: Final = len("agent.sock")
"""Bytes of a socket's name. A service checks at its start that the longest fits into the path of any VM's directory."""


class Device(abc.ABC):
    """One device of a machine. A frozen record: machines whose devices are equal are interchangeable.

    What a device makes for a VM lies in that VM's directory and goes with it, or is a descriptor, which the kernel
    takes back when QEMU is dead. So an adopted VM, whose spec nobody knows, leaves nothing behind either.
    """

    setting: ClassVar[str]
    """The profile's setting that asks for it, by which errors and mismatches name it."""
    bus: ClassVar[Bus]
    sockets: ClassVar[tuple[str, ...]] = ()
    """Names of the Unix sockets that it has in the VM's directory, whose path must not be too long for them."""

    def __init_subclass__(cls) -> None:
        too_long = [name for name in cls.sockets if len(name) > MAX_SOCKET_NAME]
        if too_long:
            raise TypeError(f"{cls.__name__}.sockets: {too_long[0]} has more than {MAX_SOCKET_NAME} characters")

    @property
    def kernel_parameters(self) -> str:
        """What the guest's kernel is told of it at boot."""
        return ""

    @property
    def agent(self) -> AgentKind:
        """Which agent is reached through it: NOOP for none, or one that is others' to ask."""
        return AgentKind.NOOP

    def check(self, open_input: OpenInput) -> None:  # noqa: B027 - most kinds need nothing of the host
        """Raises MissingFileError, naming `setting`, for what the host does not have, or QEMU's user may not use."""

    @abc.abstractmethod
    def open(self, directory: Path, *, open_input: OpenInput, opened: contextlib.ExitStack) -> Attachment:
        """Makes it ready for one QEMU. `directory` is the VM's own; `opened` closes our ends once QEMU has its own.

        Raises OSError, MissingFileError, SpecError.
        """

    @abc.abstractmethod
    def fingerprint(self) -> tuple[str, ...]:
        """What of it makes two machines different: its options without what is each VM's own, and hashes of what is in
        its files. May block for reading these. Raises OSError.
        """

    def for_template(self, directory: Path) -> Device:  # noqa: ARG002 - most kinds keep nothing in a template
        """The device as a template's VM has it, which keeps what clones need of it in the template's directory."""
        return self

    def for_clone(self, template: Path) -> Device:  # noqa: ARG002 - idem
        """The device as a clone of the template in that directory has it: a copy of its own of all that is written."""
        return self
