"""States, reasons and kinds: one word each for the ledger, the wire and the SDK."""

from __future__ import annotations

import enum

import betterproto2
import pytest

from pool.ledger.news import LeaseChange, ProfileChange
from pool.ledger.reasons import StopReason
from pool.ledger.records import EndReason
from pool.ledger.views import CircuitState
from tests.unit.rpc.served import Served
from vmm.words.kinds import ProducerKind
from vmm.words.life import VmState
from vmpool import client as sdk
from vmpool.client.convert import change, service_status
from vmpool.wire.generated.vmpool import v1 as wire

WORDS: list[tuple[type[enum.Enum], type[betterproto2.Enum], type[enum.StrEnum]]] = [
    (ProducerKind, wire.ProducerKind, sdk.ProducerKind),
    (VmState, wire.VmState, sdk.VmState),
    (StopReason, wire.StopReason, sdk.StopReason),
    (EndReason, wire.EndReason, sdk.EndReason),
    (CircuitState, wire.CircuitState, sdk.CircuitState),
    (LeaseChange, wire.LeaseChangeKind, sdk.LeaseChangeKind),
    (ProfileChange, wire.ProfileChangeKind, sdk.ProfileChangeKind),
]

FROM_A_NEWER_SERVICE = 4711


@pytest.mark.parametrize(("ours", "wires", "sdks"), WORDS, ids=lambda kind: kind.__name__)
def test_all_three_have_the_same_words(
    ours: type[enum.Enum], wires: type[betterproto2.Enum], sdks: type[enum.StrEnum]
) -> None:
    assert {member.name for member in wires} == {"UNSPECIFIED", *ours.__members__}
    assert {member.name: member.value for member in sdks} == {
        "UNKNOWN": "unknown",
        **{member.name: member.value for member in ours},
    }
    assert wires["UNSPECIFIED"].value == 0


def test_a_word_of_a_newer_service_is_unknown_and_breaks_nothing() -> None:
    """As it comes: written by whoever knows it, and read here."""
    said = wire.WatchReply.parse(
        bytes(
            wire.WatchReply(
                vm=wire.VmChange(
                    vm_id="vm-1",
                    state=wire.VmState(FROM_A_NEWER_SERVICE),
                    reason=wire.StopReason(FROM_A_NEWER_SERVICE),
                    detail="for a new reason",
                )
            )
        )
    )
    told = change(said)
    assert isinstance(told, sdk.VmChange)
    assert (told.state, told.reason, told.detail) == (
        sdk.VmState.UNKNOWN,
        sdk.StopReason.UNKNOWN,
        "for a new reason",
    )


def test_counters_of_several_unknown_reasons_are_one() -> None:
    counters = wire.PoolCounters(
        stopped=[
            wire.StoppedVms(reason=wire.StopReason.AGE, count=3),
            wire.StoppedVms(reason=wire.StopReason(FROM_A_NEWER_SERVICE), count=1),
            wire.StoppedVms(reason=wire.StopReason(FROM_A_NEWER_SERVICE + 1), count=1),
        ]
    )
    reply = wire.StatusReply(profiles=[wire.ProfileStatus(name="p", producer=wire.ProducerStatus(), counters=counters)])
    (profile,) = service_status(reply).profiles
    assert profile.counters.stopped == {sdk.StopReason.AGE: 3, sdk.StopReason.UNKNOWN: 2}
    assert (profile.circuit, profile.producer.kind) == ("unknown", "unknown")


async def test_whoever_watches_learns_why_a_vm_was_evicted(served: Served) -> None:
    async with served.client() as client, client.watch() as changes:
        first = await anext(changes)
        assert isinstance(first, sdk.Snapshot)
        evicted = first.vms[0].vm_id
        await client.evict(evicted)
        while not isinstance(told := await anext(changes), sdk.VmChange):
            pass
        assert (told.vm_id, told.state, told.reason) == (evicted, sdk.VmState.STOPPING, sdk.StopReason.ADMIN)
        status = await client.status()
    assert status.profiles[0].counters.stopped == {sdk.StopReason.ADMIN: 1}
