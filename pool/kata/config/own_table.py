"""`[vmpool]`: our own table of the file, which Kata ignores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from pool.kata.config.section import Section, table_of
from pool.kata.records.config import QEMU
from pool.kata.records.gokinds import Generation
from vmm.words.machines import AgentChannel, AgentKind

_KEYS: Final = ("agent", "channel", "kata")
_ENDED_WITH_1X: Final = ("proxy", "shim")
USE_VSOCK: Final = f"hypervisor.{QEMU}.use_vsock"
"""Runtime 1.x's key."""


@attrs.frozen(kw_only=True)
class GuestAgent:
    """The agent that vmpool uses in the guest, and the device that leads to it, or to the agent of the VM's taker."""

    kind: AgentKind = AgentKind.NOOP
    channel: AgentChannel = AgentChannel.VIRTIO_SERIAL
    channel_key: str = "vmpool.channel"
    """The key of the file that sets the channel, or could set it."""


def read_own(tables: Mapping[str, Any], problems: list[str]) -> Section:
    """The table. Unknown keys are refused: a misspelt one would be ignored by both Kata and vmpool."""
    section = Section(path="vmpool", table=table_of(tables, "vmpool", problems), problems=problems)
    for key in sorted(set(section.table) - set(_KEYS)):
        section.fault(key, f"is not a known key; the keys are {', '.join(_KEYS)}")
    return section


def generation_of(own: Section, tables: Mapping[str, Any]) -> Generation:
    """The file's generation. [proxy], [shim] and `use_vsock` mean runtime 1.x; without them our table can set it."""
    unsaid: list[str] = []  # the readers of those tables report their problems
    qemu = table_of(table_of(tables, "hypervisor", unsaid), QEMU, unsaid)
    old = "use_vsock" in qemu or any(name in tables for name in _ENDED_WITH_1X)
    return own.member("kata", Generation, Generation.RUNTIME_1X if old else Generation.CURRENT)


def agent_of(own: Section, *, generation: Generation, use_vsock: bool) -> GuestAgent:
    """Kata's own agent is behind vsock, but in runtime 1.x only if `use_vsock` is set."""
    kind = own.member("agent", AgentKind, AgentKind.NOOP)
    vsock = kind is AgentKind.NOOP and (generation is Generation.CURRENT or use_vsock)
    agent = GuestAgent(
        kind=kind,
        channel=own.member("channel", AgentChannel, AgentChannel.VSOCK if vsock else AgentChannel.VIRTIO_SERIAL),
    )
    if kind is AgentKind.NOOP and generation is Generation.RUNTIME_1X and "channel" not in own.table:
        return attrs.evolve(agent, channel_key=USE_VSOCK)
    return agent
