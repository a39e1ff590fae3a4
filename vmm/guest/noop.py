"""The agent of a guest that has none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from vmm.contract import Command
from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.words.commands import MAX_GOT_FILE, CommandSpec
from vmm.words.preparation import GuestInfo, Preparation, PreparationReport

NOT_DONE: Final = (
    "its random numbers are not reseeded, its clock is not set, what is added to it is not brought online, and no "
    "command is run in it"
)
"""What a guest without an agent goes without, for logs."""


class NoopAgent:
    """Fulfils `vmm.contract.Agent` by asking the guest nothing, as Kata's noop agent does.

    What would have to be done in the guest is refused with code "UNSUPPORTED", but for what every hand-out asks: that
    is not done either, and the report says so.
    """

    def __init__(self, *, look: Callable[[], Awaitable[None]]) -> None:
        """`look` asks whoever runs the guest whether it lives. It raises AgentUnreachableError if it does not."""
        self._look = look

    async def ping(self) -> GuestInfo:
        """Looks at the guest from outside, and reports nothing. Also a guest that is paused lives."""
        await self._look()
        return GuestInfo(agent_version=0, kernel_release="")

    async def prepare(self, preparation: Preparation) -> PreparationReport:
        """Does nothing, and reports nothing. Raises AgentRequestError where a caller would rely on what was not done:
        CPUs or memory brought online, variables of the environment.
        """
        for part, wanted in (("vcpus", preparation.vcpus), ("memory_mib", preparation.memory_mib)):
            if wanted is not None:
                raise nobody_there("prepare", "nobody in the guest can bring CPUs and memory online", part=part)
        if preparation.environment:
            raise nobody_there("prepare", "nobody in the guest can give commands an environment", part="environment")
        return PreparationReport(reseeded=False, wall_clock_ns=0, hostname="", cpus_online=0, memory_mib=0)

    async def start_command(self, spec: CommandSpec) -> Command:  # noqa: ARG002 - nobody is there to be told
        raise nobody_there("exec")

    async def put_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:  # noqa: ARG002 - idem
        raise nobody_there("put")

    async def get_file(self, path: str, *, limit: int = MAX_GOT_FILE) -> bytes:  # noqa: ARG002 - idem
        raise nobody_there("get")

    async def wait_broken(self) -> AgentProtocolError:
        """Never returns: there is no protocol."""
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        """There is nothing to close."""


def nobody_there(request: str, why: str = "nobody in the guest can answer", *, part: str = "") -> AgentRequestError:
    """The refusal of what an agent would have to do."""
    return AgentRequestError(
        request=request,
        part=part,
        code="UNSUPPORTED",
        message=f'{why}: the machine has agent = "noop"; run qemu-guest-agent in the guest and set agent = "qga", '
        'or use the built guest image with agent = "builtin"',
    )
