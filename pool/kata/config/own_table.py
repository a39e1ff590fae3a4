"""`[vmpool]`: the table of the file that is ours, and that Kata passes over."""

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
    """Whom vmpool can ask in the guest, and the device to that agent, or to the agent of whoever gets the VM."""

    kind: AgentKind = AgentKind.NOOP
    channel: AgentChannel = AgentChannel.VIRTIO_SERIAL
    channel_key: str = "vmpool.channel"
    """Which key of the file the channel comes from, or could."""


def read_own(tables: Mapping[str, Any], problems: list[str]) -> Section:
    """The table, without keys that it does not know: a misspelt one would be passed over by Kata and us."""
    section = Section(path="vmpool", table=table_of(tables, "vmpool", problems), problems=problems)
    for key in sorted(set(section.table) - set(_KEYS)):
        section.fault(key, f"is not known; there are {', '.join(_KEYS)}")
    return section


def generation_of(own: Section, tables: Mapping[str, Any]) -> Generation:
    """Whose file it is. [proxy], [shim] and `use_vsock` ended with runtime 1.x; one without them can say it in ours."""
    unsaid: list[str] = []  # who reads those tables says what is wrong with them
    qemu = table_of(table_of(tables, "hypervisor", unsaid), QEMU, unsaid)
    old = "use_vsock" in qemu or any(name in tables for name in _ENDED_WITH_1X)
    return own.member("kata", Generation, Generation.RUNTIME_1X if old else Generation.CURRENT)


def agent_of(own: Section, *, generation: Generation, use_vsock: bool) -> GuestAgent:
    """Kata's own agent is behind vsock, but with runtime 1.x, where `use_vsock` says so."""
    kind = own.member("agent", AgentKind, AgentKind.NOOP)
    vsock = kind is AgentKind.NOOP and (generation is Generation.CURRENT or use_vsock)
    agent = GuestAgent(
        kind=kind,
        channel=own.member("channel", AgentChannel, AgentChannel.VSOCK if vsock else AgentChannel.VIRTIO_SERIAL),
    )
    if kind is AgentKind.NOOP and generation is Generation.RUNTIME_1X and "channel" not in own.table:
        return attrs.evolve(agent, channel_key=USE_VSOCK)
    return agent
