"""The stand-in for the agent of a guest without one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from vmm.contract import Command
from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.guest.unsupported import NoFiles, NoPorts, NoProcesses
from vmm.words.commands import MAX_GOT_FILE, CommandSpec
from vmm.words.preparation import GuestInfo, Preparation, PreparationReport
from vmm.words.usage import Usage

NOT_DONE: Final = (
    "its random number generator is not reseeded, its clock is not set, added CPUs and memory are not brought online, "
    "and no commands can run in it"
)
"""What a guest without an agent lacks, for logs."""


class NoopAgent:
    """Implements `vmm.contract.Agent` without contacting the guest, as Kata's noop agent does.

    Requests that need the guest are refused with code "UNSUPPORTED". The steps of every hand-out are an exception: they
    are skipped, and the report says so.
    """

    def __init__(self, *, look: Callable[[], Awaitable[None]]) -> None:
        """`look` checks from outside whether the guest lives, and raises AgentUnreachableError if it does not."""
        self._look = look
        self.processes = NoProcesses(nobody_there)
        self.files = NoFiles(nobody_there)
        self.ports = NoPorts(nobody_there)

    async def ping(self) -> GuestInfo:
        """Checks the guest from outside, and reports nothing. A paused guest counts as alive."""
        await self._look()
        return GuestInfo(agent_version=0, kernel_release="")

    async def prepare(self, preparation: Preparation) -> PreparationReport:
        """Does nothing, and reports nothing. Raises AgentRequestError for requests that a caller would rely on: CPUs or
        memory to bring online, and environment variables.
        """
        for part, wanted in (("vcpus", preparation.vcpus), ("memory_mib", preparation.memory_mib)):
            if wanted is not None:
                raise nobody_there("prepare", "no agent can bring CPUs and memory online", part=part)
        if preparation.environment:
            raise nobody_there("prepare", "no agent can set the environment of commands", part="environment")
        return PreparationReport(reseeded=False, wall_clock_ns=0, hostname="", cpus_online=0, memory_mib=0)

    async def start_command(self, spec: CommandSpec) -> Command:  # noqa: ARG002 - no agent to use it
        raise nobody_there("exec")

    async def put_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:  # noqa: ARG002 - as above
        raise nobody_there("put")

    async def get_file(self, path: str, *, limit: int = MAX_GOT_FILE) -> bytes:  # noqa: ARG002 - as above
        raise nobody_there("get")

    async def usage(self) -> Usage:
        raise nobody_there("usage")

    async def set_clock(self, wall_clock_ns: int) -> None:  # noqa: ARG002 - as above
        raise nobody_there("set_clock")

    async def wait_broken(self) -> AgentProtocolError:
        """Never returns: there is no protocol."""
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        """Does nothing: there is no connection."""


def nobody_there(request: str, why: str = "no agent runs in the guest", *, part: str = "") -> AgentRequestError:
    """The refusal of a request that needs an agent."""
    return AgentRequestError(
        request=request,
        part=part,
        code="UNSUPPORTED",
        message=f'{why}: the machine has agent = "noop"; run qemu-guest-agent in the guest and set agent = "qga", '
        'or use the built guest image with agent = "builtin"',
    )
