"""From a QEMU command line to the guest's agent, so that a VM can be adopted without its spec."""

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
    """The way to the agent of a running QEMU."""

    @property
    def agent(self) -> AgentKind:
        """NOOP: the service asks no agent."""

    @property
    def silence_s(self) -> float | None:
        """How long the agent may be silent before the host reconnects; the time doubles with each attempt. None:
        without a limit.
        """

    async def open(self, directory: Path, *, gone: Callable[[], Awaitable[ExitReport]]) -> trio.SocketStream:
        """A connection to the agent; `directory` is the VM's, and `gone` returns when QEMU is dead. No time limit.

        Raises AgentUnreachableError.
        """


@attrs.frozen(kw_only=True)
class NoLink:
    """The guest has no agent that the service asks. Implements AgentLink."""

    agent: AgentKind = AgentKind.NOOP
    silence_s: float | None = None

    async def open(self, directory: Path, *, gone: Callable[[], Awaitable[ExitReport]]) -> trio.SocketStream:  # noqa: ARG002
        raise AssertionError("a guest without an agent is never asked")


_KINDS: Final[tuple[Callable[[str, Mapping[str, str]], AgentLink | None], ...]] = (
    agent_port.link_of,
    vsock.link_of,
)


def agent_link(argv: Sequence[str]) -> AgentLink:
    """The link to the agent, from a command line of `build_argv`."""
    links = (link for driver, properties in _plugged_in(argv) for kind in _KINDS if (link := kind(driver, properties)))
    return next((link for link in links if link.agent is not AgentKind.NOOP), NoLink())


def vsock_cid(argv: Sequence[str]) -> int | None:
    """The CID of its vsock device, whatever listens behind it; None without such a device."""
    links = (vsock.link_of(driver, properties) for driver, properties in _plugged_in(argv))
    return next((link.cid for link in links if link is not None), None)


def _plugged_in(argv: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each `-device`: its driver, and its properties that have values."""
    for option, value in itertools.pairwise(argv):
        if option == "-device":
            driver, *properties = value.split(",")
            yield driver, dict(text.partition("=")[::2] for text in properties)
