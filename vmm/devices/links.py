"""From a QEMU's command line to its guest's agent, so that a VM can be adopted without its spec."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import attrs
import trio

from vmm.devices import agent_port, vsock
from vmm.words.machines import AgentKind
from vmm.words.processes import ExitReport


class AgentLink(Protocol):
    """How the agent of a running QEMU is reached."""

    @property
    def agent(self) -> AgentKind:
        """NOOP: it is not ours to ask."""

    @property
    def silence_s(self) -> float | None:
        """How long the agent may be silent before we hang up and connect anew, and twice as long the next time. None:
        for ever.
        """

    async def open(self, directory: Path, *, gone: Callable[[], Awaitable[ExitReport]]) -> trio.SocketStream:
        """A connection to it; `directory` is the VM's, and `gone` returns when QEMU is dead. No time limit.

        Raises AgentUnreachableError.
        """


@attrs.frozen(kw_only=True)
class NoLink:
    """There is nobody in the guest whom we can ask. Fulfils AgentLink."""

    agent: AgentKind = AgentKind.NOOP
    silence_s: float | None = None

    async def open(self, directory: Path, *, gone: Callable[[], Awaitable[ExitReport]]) -> trio.SocketStream:  # noqa: ARG002
        raise AssertionError("nobody is asked over it")


_KINDS: Final[tuple[Callable[[str, Mapping[str, str]], AgentLink | None], ...]] = (
    agent_port.link_of,
    vsock.link_of,
)


def agent_link(argv: Sequence[str]) -> AgentLink:
    """What a command line of `build_argv` says of the agent."""
    links = (link for driver, properties in _plugged_in(argv) for kind in _KINDS if (link := kind(driver, properties)))
    return next((link for link in links if link.agent is not AgentKind.NOOP), NoLink())


def vsock_cid(argv: Sequence[str]) -> int | None:
    """Of its vsock device, whoever listens behind it; None if it has none."""
    links = (vsock.link_of(driver, properties) for driver, properties in _plugged_in(argv))
    return next((link.cid for link in links if link is not None), None)


def _plugged_in(argv: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each `-device`: its driver, and its properties as far as they have values."""
    for option, value in itertools.pairwise(argv):
        if option == "-device":
            driver, *properties = value.split(",")
            yield driver, dict(text.partition("=")[::2] for text in properties)
