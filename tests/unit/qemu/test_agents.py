"""How QEMU's guests are reached, with the guest in the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import memory_stream_pair

from tests.unit.guest.test_session import hello_reply, read_hello
from tests.unit.qga.fake import FakeQga
from tests.virtual_time import in_virtual_time
from vmm.devices.agent_port import PortLink
from vmm.devices.links import AgentLink
from vmm.qemu import agents
from vmm.qemu.directory import VmDirectory
from vmm.words.machines import AgentKind
from vmm.words.processes import ExitReport


@attrs.define(eq=False)
class Reached:
    """As much of a running QEMU as a connection needs."""

    agent_link: AgentLink
    directory: VmDirectory = attrs.field(factory=lambda: VmDirectory(Path("/nowhere")))
    at_end: list[Any] = attrs.field(factory=list)

    async def wait_exited(self) -> ExitReport:
        await trio.sleep_forever()

    def close_at_end(self, agent: Any) -> None:
        self.at_end.append(agent)


class Builtin:
    """As much of our agent as greets."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def run(self) -> None:
        await self.stream.send_all(hello_reply(await read_hello(self.stream)))


@pytest.mark.parametrize(("kind", "guest"), [(AgentKind.QGA, FakeQga), (AgentKind.BUILTIN, Builtin)])
@in_virtual_time
async def test_an_agent_that_cannot_be_heard_is_connected_to_anew(kind: AgentKind, guest: Any) -> None:
    """QEMU may hold back what it says until the host has hung up once more."""
    ports: list[trio.abc.Stream] = []
    async with trio.open_nursery() as nursery:

        async def open_port(_link: Any, _directory: Path, *, gone: Any) -> trio.abc.Stream:
            ours, theirs = memory_stream_pair()
            ports.append(theirs)
            if len(ports) == 3:
                nursery.start_soon(guest(theirs).run)
            await trio.lowlevel.checkpoint()
            return ours

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PortLink, "open", open_port)
            instance = Reached(PortLink(agent=kind))
            agent = await agents.connect_agent(cast("Any", instance), nursery=nursery)
        assert instance.at_end == [agent]
        for silent in ports[:2]:  # both were hung up
            while await silent.receive_some():
                pass
        await agent.aclose()
        nursery.cancel_scope.cancel()
