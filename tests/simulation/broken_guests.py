"""Edges and guests with one fault each, to prove that the checks of calls into VMs can fail."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

import attrs
import trio

from pool.core.coordinator import Coordinator
from pool.ledger.records import Lease, Owner
from pool.rpc.finding import answer_list_leases
from pool.rpc.machine.guests import Guest, Guests
from pool.rpc.machine.statuses import GuestStatuses
from pool.rpc.output import GuestRoom
from pool.rpc.peer import current_owner
from pool.rpc.users import User
from tests.simulation.edge import Edge
from tests.simulation.simulation import Parts
from vmm.simulated.machine import Machine
from vmm.simulated.network import Network, Peer
from vmm.words.commands import OutputStream
from vmm.words.ports import GuestAddress

ROOT: Final = Owner(uid=0)


def with_guests(kind: type[Guests]) -> Parts:
    return Parts(name=kind.__name__, break_edge=lambda edge: edge.use(kind(coordinator=edge.coordinator)))


class AsksNotWhoItIs(Guests):
    @contextlib.asynccontextmanager
    async def of(
        self, lease_id: str, *, owner: Owner, statuses: GuestStatuses, path: bytes = b""
    ) -> AsyncIterator[Guest]:
        async with super().of(lease_id, owner=ROOT, statuses=statuses, path=path) as guest:
            yield guest


class HasABug(Guests):
    def of(self, *_arguments: Any, **_options: Any) -> NoReturn:
        raise RuntimeError("a bug")


class StaysWithItsLease(Guests):
    """A call goes on for a while when its lease has ended."""

    @contextlib.asynccontextmanager
    async def of(
        self, lease_id: str, *, owner: Owner, statuses: GuestStatuses, path: bytes = b""
    ) -> AsyncIterator[Guest]:
        async with super().of(lease_id, owner=owner, statuses=statuses, path=path) as guest:
            try:
                yield guest
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    await trio.sleep(30.0)
                raise


class KeepsRooms(User):
    """Of calls that do not end well."""

    @contextlib.contextmanager
    def guest_stream(self, *, given: int = 0) -> Iterator[GuestRoom]:
        room = self.output.begin(given=given)
        yield room
        room.end()


def keep_rooms(edge: Edge) -> None:
    edge.make_user = KeepsRooms


def leave_out_a_lease(edge: Edge) -> None:
    @attrs.frozen
    class Forgetful:
        coordinator: Coordinator

        def leases(self) -> tuple[Lease, ...]:
            return self.coordinator.leases()[1:]

    forgetful: Any = Forgetful(edge.coordinator)
    edge.methods["Pool/ListLeases"] = lambda stream: answer_list_leases(
        stream, coordinator=forgetful, owner=current_owner()
    )


# -- guests ----------------------------------------------------------------------------------------------------------


def in_new_sessions(forget: Callable[[Machine], None]) -> Parts:
    """A guest that forgets something when another service comes."""

    def break_guest(machine: Machine) -> None:
        begin = machine.begin_session

        def begin_session(nursery: trio.Nursery) -> None:
            forget(machine)
            begin(nursery)

        machine.begin_session = begin_session  # type: ignore[method-assign]

    return Parts(name=forget.__name__, break_guest=break_guest)


def forget_processes(machine: Machine) -> None:
    machine.detached.clear()


def forget_output(machine: Machine) -> None:
    for detached in machine.detached.values():
        kept = detached.kept[OutputStream.STDOUT]
        kept.start = kept.end


def forget_files(machine: Machine) -> None:
    root = machine.files.find(b"/tmp")
    root.children.clear()


@attrs.define(eq=False)
class Garbled(Peer):
    async def receive(self) -> bytes:
        return (await super().receive())[::-1] + b"?"


class Garbles(Network):
    async def connect(self, address: GuestAddress) -> Peer:
        peer = await super().connect(address)
        return Garbled(peer._incoming, peer._outgoing, peer._other)


def garble(machine: Machine) -> None:
    machine.network = Garbles()


BROKEN_GUESTS: Final[Mapping[str, tuple[Parts, ...]]] = {
    "detached_processes_go_on": (in_new_sessions(forget_processes),),
    "output_is_kept": (in_new_sessions(forget_output),),
    "what_was_written_is_read": (in_new_sessions(forget_files),),
    "connections_carry_what_was_sent": (Parts(name="garble", break_guest=garble),),
    "calls_end_with_their_leases": (with_guests(StaysWithItsLease),),
    "what_calls_take_is_given_back": (Parts(name="keep_rooms", break_edge=keep_rooms),),
    "no_call_fails_by_a_bug": (with_guests(HasABug),),
    "nobody_reaches_anothers_vm": (with_guests(AsksNotWhoItIs),),
    "leases_are_found_by_their_labels": (Parts(name="leave_out_a_lease", break_edge=leave_out_a_lease),),
}
