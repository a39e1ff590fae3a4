"""vmpool.v1.Ports: connections to and from a guest, and who may take them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from pool.ledger.records import Owner
from pool.rpc.machine.offers import KEPT_S
from pool.rpc.machine.ports import MAX_WAITING
from pool.rpc.server import ServerSettings
from tests.unit.rpc.fake_guest import Answering, Connection, Listener, lease_with, refusal
from tests.unit.rpc.raw import RawClient, connected, framed
from tests.unit.rpc.served import Served, serving
from vmm.words.ports import TcpAddress, UnixAddress
from vmpool.wire.details import ErrorDetail
from vmpool.wire.generated.vmpool import v1 as wire

PORTS = "/vmpool.v1.Ports/"

WEB = wire.PortAddress(tcp_port=80)
END = wire.EndOfStream()


async def begin(raw: RawClient, method: str, *requests: Any) -> int:
    number = await raw.start(PORTS + method)
    for request in requests:
        await raw.send(number, framed(request))
    return number


def connect_to(lease_id: str, address: wire.PortAddress | None = WEB) -> wire.ConnectRequest:
    return wire.ConnectRequest(start=wire.ConnectStart(lease_id=lease_id, address=address))


# -- Connect -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["end", "the requests' end"])
async def test_bytes_go_both_ways_until_both_directions_have_ended(served: Served, ends: str) -> None:
    connection = Connection()
    guest = Answering(connect=connection)
    lease_id = await lease_with(served, ports=guest)
    async with connected(served.path) as raw:
        number = await begin(raw, "Connect", connect_to(lease_id), wire.ConnectRequest(data=b"ping"))
        assert await raw.reply(number, wire.ConnectReply) == wire.ConnectReply(connected=wire.Connected())
        assert await raw.reply(number, wire.ConnectReply) == wire.ConnectReply(data=b"ping")
        if ends == "end":
            await raw.send(number, framed(wire.ConnectRequest(end=END)))
        else:
            await raw.send(number, end=True)
        assert await raw.reply(number, wire.ConnectReply) == wire.ConnectReply(end=END)
        assert await raw.status(number) == ("0", "")
    assert guest.asked == [("connect", (TcpAddress(port=80),), {})]
    assert connection.ended.is_set()
    assert connection.closed


async def test_the_clients_direction_goes_on_when_the_servers_has_ended(served: Served) -> None:
    connection = Connection()
    connection._send.close()
    connection._send = trio.open_memory_channel[bytes](9)[0]
    lease_id = await lease_with(served, ports=Answering(connect=connection))
    async with connected(served.path) as raw:
        number = await begin(raw, "Connect", connect_to(lease_id))
        assert (await raw.reply(number, wire.ConnectReply)).connected is not None
        assert (await raw.reply(number, wire.ConnectReply)).end is not None
        assert number not in raw.over
        await raw.send(number, framed(wire.ConnectRequest(data=b"more")))
        await served.until(lambda: connection.received == b"more")
        await raw.send(number, framed(wire.ConnectRequest(end=END)))
        assert await raw.status(number) == ("0", "")


async def test_a_client_that_goes_away_closes_the_connection(served: Served) -> None:
    connection = Connection()
    lease_id = await lease_with(served, ports=Answering(connect=connection))
    async with connected(served.path) as raw:
        number = await begin(raw, "Connect", connect_to(lease_id))
        await raw.reply(number, wire.ConnectReply)
    await served.until(lambda: connection.closed and served.server.statistics().calls == 0)
    assert not connection.ended.is_set()


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        (wire.PortAddress(tcp_port=65535, host="::1"), TcpAddress(port=65535, host="::1")),
        (wire.PortAddress(tcp_port=1, host="10.0.0.1"), TcpAddress(port=1, host="10.0.0.1")),
        (wire.PortAddress(unix_path=b"/run/\xff"), UnixAddress(path=b"/run/\xff")),
    ],
)
async def test_addresses(served: Served, address: wire.PortAddress, meant: Any) -> None:
    guest = Answering(wait=None)
    lease_id = await lease_with(served, ports=guest)
    async with connected(served.path) as raw:
        number = await raw.request(PORTS + "Wait", wire.WaitPortRequest(lease_id=lease_id, address=address))
        assert await raw.replies(number, wire.WaitPortReply) == [wire.WaitPortReply()]
    assert guest.asked == [("wait", (meant,), {})]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (None, "address: is missing; set tcp_port or unix_path"),
        (wire.PortAddress(), "address: has nothing; set exactly one of tcp_port and unix_path"),
        (wire.PortAddress(tcp_port=0), "address.tcp_port: 0 is not a port; use 1 to 65535"),
        (wire.PortAddress(tcp_port=65536), "address.tcp_port: 65536 is not a port; use 1 to 65535"),
        (
            wire.PortAddress(tcp_port=1, host="localhost"),
            "address.host: 'localhost' is not an IPv4 or IPv6 address; names are not looked up",
        ),
        (wire.PortAddress(unix_path=b"run"), "address.unix_path: 'run' is relative; set an absolute path"),
        (wire.PortAddress(unix_path=b"/" + b"x" * 107), "address.unix_path: has 108 bytes; Linux's maximum"),
        (wire.PortAddress(unix_path=b"/x", host="::1"), "address.host: is for tcp_port only; leave it out"),
    ],
)
async def test_bad_addresses(served: Served, address: wire.PortAddress | None, reason: str) -> None:
    async with connected(served.path) as raw:
        number = await raw.request(PORTS + "Wait", wire.WaitPortRequest(lease_id="x", address=address))
        status, message = await raw.status(number)
        assert (status, message[: len(reason)]) == ("3", reason)
        number = await begin(raw, "Connect", connect_to("x", address))
        status, message = await raw.status(number)
        assert (status, message[: len(reason) + 6]) == ("3", f"start.{reason}")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ECONNREFUSED", "14"),
        ("ENOENT", "14"),
        ("ECONNRESET", "14"),
        ("EACCES", "7"),
        ("EADDRNOTAVAIL", "3"),
        ("EMFILE", "8"),
        ("EADDRINUSE", "6"),
        ("UNSUPPORTED", "9"),
        ("made up", "9"),
    ],
)
async def test_what_the_guest_refuses(served: Served, code: str, status: str) -> None:
    lease_id = await lease_with(served, ports=Answering(connect=refusal(code)))
    async with connected(served.path) as raw:
        number = await begin(raw, "Connect", connect_to(lease_id))
        assert (await raw.status(number))[0] == status
        assert await raw.detail(number) == ErrorDetail(reason=code, domain="guest")


# -- Listen and Accept -------------------------------------------------------------------------------------------------


async def listening(raw: RawClient, lease_id: str) -> int:
    address = wire.PortAddress(tcp_port=0)
    number = await raw.request(PORTS + "Listen", wire.ListenRequest(lease_id=lease_id, address=address))
    told = await raw.reply(number, wire.ListenReply)
    assert told.listening == wire.PortAddress(tcp_port=4242, host="127.0.0.1")
    return number


async def incoming(raw: RawClient, number: int) -> str:
    told = await raw.reply(number, wire.ListenReply)
    return str(told.incoming.connection_id)


def accepting(connection_id: str) -> wire.AcceptRequest:
    return wire.AcceptRequest(start=wire.AcceptStart(connection_id=connection_id))


@pytest.fixture
def listener() -> Listener:
    return Listener(TcpAddress(port=4242))


async def test_connections_are_told_of_and_taken_on_another_connection(served: Served, listener: Listener) -> None:
    guest = Answering(listen=listener)
    lease_id = await lease_with(served, ports=guest)
    async with connected(served.path) as raw, connected(served.path) as other:
        number = await listening(raw, lease_id)
        assert guest.asked == [("listen", (TcpAddress(port=0),), {})]
        one, two = listener.connect(1), listener.connect(2)
        ids = [await incoming(raw, number) for _ in range(2)]
        assert len(set(ids)) == 2
        assert min(map(len, ids)) > 32
        for connection, connection_id in ((two, ids[1]), (one, ids[0])):
            taken = await begin(other, "Accept", accepting(connection_id), wire.AcceptRequest(data=b"hello"))
            assert (await other.reply(taken, wire.AcceptReply)).connected is not None
            assert (await other.reply(taken, wire.AcceptReply)).data == b"hello"
            await other.send(taken, framed(wire.AcceptRequest(end=END)))
            assert (await other.reply(taken, wire.AcceptReply)).end is not None
            assert await other.status(taken) == ("0", "")
            assert connection.closed


async def test_a_connection_is_taken_once(served: Served, listener: Listener) -> None:
    lease_id = await lease_with(served, ports=Answering(listen=listener))
    async with connected(served.path) as raw:
        number = await listening(raw, lease_id)
        listener.connect(1)
        connection_id = await incoming(raw, number)
        await raw.reply(await begin(raw, "Accept", accepting(connection_id)), wire.AcceptReply)
        status, message = await raw.status(await begin(raw, "Accept", accepting(connection_id)))
        assert (status, message.startswith("start.connection_id: there is no such connection")) == ("5", True)


async def test_a_connection_is_its_users_own(vm_home: Path, listener: Listener, call_as: Callable[[int], None]) -> None:
    settings = ServerSettings(allowed_uids=frozenset({0, 4001}))
    async with serving(vm_home, settings=settings) as served:
        lease_id = await lease_with(served, ports=Answering(listen=listener))
        async with connected(served.path) as raw:
            number = await listening(raw, lease_id)
            listener.connect(1)
            connection_id = await incoming(raw, number)
            call_as(4001)
            async with connected(served.path) as other:
                assert (await other.status(await begin(other, "Accept", accepting(connection_id))))[0] == "5"
            taken = await begin(raw, "Accept", accepting(connection_id))
            assert (await raw.reply(taken, wire.AcceptReply)).connected is not None


async def test_a_connection_that_is_not_taken_in_time_is_gone(
    served: Served, listener: Listener, autojump_clock: trio.testing.MockClock
) -> None:
    lease_id = await lease_with(served, ports=Answering(listen=listener))
    async with connected(served.path) as raw:
        number = await listening(raw, lease_id)
        listener.connect(1)
        connection_id = await incoming(raw, number)
        await trio.sleep(KEPT_S + 1)
        assert (await raw.status(await begin(raw, "Accept", accepting(connection_id))))[0] == "5"


async def test_the_end_of_listening_is_not_that_of_what_was_taken(served: Served, listener: Listener) -> None:
    lease_id = await lease_with(served, ports=Answering(listen=listener))
    async with connected(served.path) as other:
        async with connected(served.path) as raw:
            number = await listening(raw, lease_id)
            connection = listener.connect(1)
            listener.connect(2)
            first, second = [await incoming(raw, number) for _ in range(2)]
            taken = await begin(other, "Accept", accepting(first))
            await other.reply(taken, wire.AcceptReply)
        await served.until(lambda: listener.closed)
        assert (await other.status(await begin(other, "Accept", accepting(second))))[0] == "5"
        await other.send(taken, framed(wire.AcceptRequest(data=b"still")))
        assert (await other.reply(taken, wire.AcceptReply)).data == b"still"
        assert not connection.closed


async def test_a_taken_connection_ends_with_its_lease(served: Served, listener: Listener) -> None:
    lease_id = await lease_with(served, ports=Answering(listen=listener))
    async with connected(served.path) as raw:
        number = await listening(raw, lease_id)
        listener.connect(1)
        taken = await begin(raw, "Accept", accepting(await incoming(raw, number)))
        await raw.reply(taken, wire.AcceptReply)
        await served.coordinator.release(lease_id, owner=Owner(uid=0))
        assert (await raw.status(taken))[0] == "10"
        assert (await raw.status(number))[0] == "10"


async def test_what_is_not_taken_waits_in_the_guest(served: Served, listener: Listener) -> None:
    """The service keeps so many at a time, however many come."""
    lease_id = await lease_with(served, ports=Answering(listen=listener))
    async with connected(served.path) as raw:
        number = await listening(raw, lease_id)
        for each in range(MAX_WAITING + 1):
            listener.connect(each)
        ids = [await incoming(raw, number) for _ in range(MAX_WAITING)]
        with trio.move_on_after(0.05) as waited:
            await raw.receive()
        assert waited.cancelled_caught
        await raw.reply(await begin(raw, "Accept", accepting(ids[0])), wire.AcceptReply)
        assert await incoming(raw, number) not in ids
