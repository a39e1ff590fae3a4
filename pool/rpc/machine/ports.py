"""The methods of vmpool.v1.Ports."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

import attrs
import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from pool.ledger.records import Owner
from pool.rpc.calls import Calls, ServerStream, end, receive, receive_only, reply, send
from pool.rpc.convert import check_size
from pool.rpc.errors import InvalidRequestError
from pool.rpc.leases import lease_id_of
from pool.rpc.machine.fields import address_of, kind_of, start_of
from pool.rpc.machine.guests import Guest, Guests
from pool.rpc.machine.offers import KEPT_S, Offer, Offers
from pool.rpc.machine.statuses import ACCEPTING, PORTS
from pool.rpc.peer import current_owner
from pool.rpc.stream import guarded
from vmm.contract import ByteStream, PortListener
from vmm.words.ports import GuestAddress, TcpAddress
from vmpool.wire.generated.vmpool import v1 as wire

_SERVICE: Final = "/vmpool.v1.Ports"

MAX_WAITING: Final = 64
"""Connections of one Listen call that wait to be taken. Further ones wait in the guest's kernel."""

Reply = type[wire.ConnectReply] | type[wire.AcceptReply]


@attrs.define(eq=False, kw_only=True)
class PortsService(wire.PortsBase):
    """The methods as trio code; see `pool.rpc.service`."""

    guests: Guests
    calls: Calls
    _offers: Offers = attrs.field(factory=Offers, init=False)

    def __mapping__(self) -> dict[str, Handler]:
        method, both_ways = self.calls.method, Cardinality.STREAM_STREAM
        return {
            f"{_SERVICE}/Connect": method(self.connect_call, wire.ConnectRequest, wire.ConnectReply, both_ways),
            f"{_SERVICE}/Listen": method(
                self.listen_call, wire.ListenRequest, wire.ListenReply, Cardinality.UNARY_STREAM
            ),
            f"{_SERVICE}/Accept": method(self.accept_call, wire.AcceptRequest, wire.AcceptReply, both_ways),
            f"{_SERVICE}/Wait": method(self.wait_call, wire.WaitPortRequest, wire.WaitPortReply),
        }

    async def wait_call(self, stream: ServerStream) -> None:
        request: wire.WaitPortRequest = await receive_only(stream)
        address, lease_id = address_of("address", request.address), lease_id_of(request.lease_id)
        async with self.guests.of(lease_id, owner=current_owner(), statuses=PORTS) as guest:
            await guest.agent.ports.wait(address)
        await reply(stream, wire.WaitPortReply())

    async def connect_call(self, stream: ServerStream) -> None:
        start: wire.ConnectStart = start_of(await receive(stream), "data", "end")
        address = address_of("start.address", start.address)
        lease_id = lease_id_of(start.lease_id, field="start.lease_id")
        with guarded(stream).user.guest_stream() as room:
            async with (
                self.guests.of(lease_id, owner=current_owner(), statuses=PORTS) as guest,
                aclosing(await guest.agent.ports.connect(address, room=room)) as connection,
            ):
                await _relay(stream, connection, reply=wire.ConnectReply)
        await end(stream)

    async def accept_call(self, stream: ServerStream) -> None:
        start: wire.AcceptStart = start_of(await receive(stream), "data", "end")
        check_size("start.connection_id", start.connection_id)
        owner = current_owner()
        with guarded(stream).user.guest_stream() as room:
            offer = self._offers.take(start.connection_id, owner=owner)
            if offer is None:
                raise GRPCError(
                    Status.NOT_FOUND,
                    "start.connection_id: there is no such connection, or it was taken, or it was closed because it "
                    f"was not taken within {KEPT_S:g} s; take each as soon as Listen tells of it",
                )
            async with (
                self.guests.of(offer.lease_id, owner=owner, statuses=ACCEPTING),
                aclosing(await offer.listener.take(offer.number, room=room)) as connection,
            ):
                await _relay(stream, connection, reply=wire.AcceptReply)
        await end(stream)

    async def listen_call(self, stream: ServerStream) -> None:
        request: wire.ListenRequest = await receive_only(stream)
        address = address_of("address", request.address, to_listen=True)
        lease_id, owner = lease_id_of(request.lease_id), current_owner()
        with guarded(stream).user.guest_stream():
            async with (
                self.guests.of(lease_id, owner=owner, statuses=PORTS) as guest,
                aclosing(await guest.agent.ports.listen(address)) as listener,
            ):
                await send(stream, wire.ListenReply(listening=_address_message(listener.address)))
                await self._offer_all(stream, guest, listener, lease_id=lease_id, owner=owner)

    async def _offer_all(
        self, stream: ServerStream, guest: Guest, listener: PortListener, *, lease_id: str, owner: Owner
    ) -> None:
        room = trio.Semaphore(MAX_WAITING)
        while True:
            await room.acquire()
            offer = Offer(lease_id=lease_id, owner=owner, listener=listener, number=await listener.accept())
            connection_id = self._offers.make(offer)
            guest.nursery.start_soon(self._offers.keep, connection_id, offer, room)
            await send(stream, wire.ListenReply(incoming=wire.Incoming(connection_id=connection_id)))


async def _relay(stream: ServerStream, connection: ByteStream, *, reply: Reply) -> None:
    """Passes bytes both ways until both directions have ended. Each waits while its receiver does not read."""
    await send(stream, reply(connected=wire.Connected()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pass_on, stream, connection)
        while data := await connection.receive():
            await send(stream, reply(data=data))
        await send(stream, reply(end=wire.EndOfStream()))


async def _pass_on(stream: ServerStream, connection: ByteStream) -> None:
    """The end of the requests is the end of their direction, as `end` is."""
    while (request := await receive(stream)) is not None:
        match kind_of(request, "start", "data", "end"):
            case "data":
                await connection.send(request.data)
            case "end":
                break
            case _:
                raise InvalidRequestError(field="start", reason="was already sent; use one call for each connection")
    await connection.send_eof()


def _address_message(address: GuestAddress) -> wire.PortAddress:
    if isinstance(address, TcpAddress):
        return wire.PortAddress(tcp_port=address.port, host=address.host)
    return wire.PortAddress(unix_path=address.path)
