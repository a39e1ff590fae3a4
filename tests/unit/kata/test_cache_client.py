"""The VMCache client where the server is not there, not well, or not one."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from h2.config import H2Configuration
from h2.connection import H2Connection

from pool.kata.cache.client import cache_status, open_cache_client, quit_cache
from pool.kata.cache.server import cached_vm
from pool.kata.cache.wire import vm_to_grpc
from pool.kata.errors import CacheError
from tests.unit.kata.cache import base_vm, serving_cache
from tests.unit.rpc.raw import framed
from vmpool.client import ServiceUnavailableError
from vmpool.wire.generated.cache import GrpcStatus, GrpcVm, GrpcVmConfig

pytestmark = pytest.mark.usefixtures("leak_check")

LIMIT_S = 20.0
CONFIG = GrpcVmConfig(data=b'{"HypervisorType":"qemu"}', agent_config=b"{}")
VM = vm_to_grpc(cached_vm(base_vm(1)))


class Script:
    """What a server sends, call by call; it answers the client's n-th request with the n-th answer."""

    def __init__(self) -> None:
        self._http2 = H2Connection(config=H2Configuration(client_side=False, header_encoding="utf-8"))
        self._client = H2Connection(config=H2Configuration(header_encoding="utf-8"))
        self._http2.initiate_connection()
        self._client.initiate_connection()
        self._number = 1
        self.answers: list[bytes] = []

    def answer(self, data: bytes, *, status: str = "0", content_type: str = "application/grpc") -> Script:
        self._client.send_headers(
            self._number,
            [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")],
            end_stream=True,
        )
        self._http2.receive_data(self._client.data_to_send())
        self._http2.send_headers(self._number, [(":status", "200"), ("content-type", content_type)])
        if data:
            self._http2.send_data(self._number, data)
        self._http2.send_headers(self._number, [("grpc-status", status), ("grpc-message", "so")], end_stream=True)
        self.answers.append(self._http2.data_to_send())
        self._number += 2
        return self


def scripted(*messages: Any) -> list[bytes]:
    script = Script()
    for message in messages:
        script.answer(framed(message))
    return script.answers


@contextlib.asynccontextmanager
async def playing(path: Path, answers: list[bytes], *, hangs: bool = False) -> AsyncIterator[None]:
    """A server that plays `answers` to each client, and then hangs up, or hangs."""

    async def play(stream: trio.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):
                for answer in answers:
                    await _request(stream)
                    await stream.send_all(answer)
                if hangs:
                    await trio.sleep_forever()

    with trio.socket.socket(socket.AF_UNIX) as listener:
        await listener.bind(os.fspath(path))
        listener.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, play, [trio.SocketListener(listener)])
            yield
            nursery.cancel_scope.cancel()
    await trio.Path(path).unlink()


async def _request(stream: trio.SocketStream) -> None:
    """Waits for the end of a request: a DATA frame with END_STREAM."""
    received = bytearray()
    while True:
        received += await stream.receive_some()
        frames = received.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        while len(frames) >= 9:
            size = int.from_bytes(frames[:3], "big")
            if (frames[3], frames[4] & 1) == (0, 1):
                return
            frames = frames[9 + size :]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmpool.client.connection.LATE_ANSWER_S", 0.05)


async def take(path: Path, *, config_s: float = LIMIT_S, vm_s: float = LIMIT_S) -> str:
    """With time limits for the two calls."""
    async with open_cache_client(path, timeout_s=config_s) as client:
        return (await client.take_base_vm(timeout_s=vm_s)).id


async def failure(path: Path, **limits: float) -> CacheError:
    with pytest.raises(CacheError) as error:
        await take(path, **limits)
    return error.value


@pytest.mark.parametrize("endpoint", ["", "cache.sock"])
async def test_f21_no_server(vm_home: Path, endpoint: str) -> None:
    error = await failure(vm_home / endpoint)
    assert str(error).startswith(f"failed to Config: rpc error: code = Unavailable desc = {vm_home / endpoint}: ")
    assert str(error).endswith("start the VMCache server, or correct vm_cache_endpoint")
    assert (error.call, error.code) == ("Config", "Unavailable")


async def test_f21_no_server_for_the_other_calls(vm_home: Path) -> None:
    for call, text in ((cache_status, "Status"), (quit_cache, "Quit")):
        with pytest.raises(CacheError, match=f"^failed to call gRPC {text}: rpc error: code = Unavailable desc = "):
            await call(vm_home / "cache.sock", timeout_s=LIMIT_S)


async def test_an_endpoint_that_is_no_path() -> None:
    with pytest.raises(CacheError, match=r"^failed to connect "):
        await take(Path("/run/\0"))


async def test_an_answer_that_is_whole_counts_although_the_server_hung_up_with_it(vm_home: Path) -> None:
    """Else the VM would be lost to both."""
    path = vm_home / "cache.sock"
    async with playing(path, scripted(CONFIG, VM)):
        assert await take(path) == "vm-1"
    async with playing(path, scripted(GrpcStatus(pid=7))):
        assert (await cache_status(path, timeout_s=LIMIT_S)).pid == 7


@pytest.mark.parametrize("share", range(0, 100, 4))
async def test_a_server_that_dies_within_its_answer(vm_home: Path, share: int) -> None:
    path = vm_home / "cache.sock"
    config, vm = scripted(CONFIG, VM)
    async with playing(path, [config[: len(config) * share // 100]]):
        assert str(await failure(path)).startswith("failed to Config: rpc error: code = Unavailable desc = ")
    async with playing(path, [config, vm[: len(vm) * share // 100]]):
        assert str(await failure(path)).startswith("failed to GetBaseVM: rpc error: code = Unavailable desc = ")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("share", [0, 50, 99])
async def test_a_server_that_hangs_within_its_answer(vm_home: Path, share: int) -> None:
    path = vm_home / "cache.sock"
    config, vm = scripted(CONFIG, VM)
    async with playing(path, [config[: len(config) * share // 100]], hangs=True):
        error = await failure(path, config_s=0.05)
        assert str(error).startswith("failed to Config: rpc error: code = DeadlineExceeded desc = no answer from ")
        assert error.code == "DeadlineExceeded"
    async with playing(path, [config, vm[: len(vm) * share // 100]], hangs=True):
        assert (await failure(path, vm_s=0.05)).call == "GetBaseVM"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 100, b"\xff" * 1000])
async def test_a_server_of_something_else(vm_home: Path, answer: bytes) -> None:
    path = vm_home / "cache.sock"
    async with playing(path, [answer]):
        assert (await failure(path)).code == "Unavailable"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "rpc error: code = Internal desc = the call ended without a reply"),
        (framed(b"\xff"), "rpc error: code = Internal desc = the answer, 1 bytes, is not a GrpcVmConfig: "),
        (framed(b"\x0a\x7f"), "rpc error: code = Internal desc = the answer, 2 bytes, is not a GrpcVmConfig: "),
        (struct.pack(">BI", 0, 9) + b"x", "rpc error: code = Internal desc = the answer is not a gRPC message: "),
        (struct.pack(">BI", 1, 1) + b"x", "rpc error: code = Internal desc = the answer is not a gRPC message: "),
    ],
)
async def test_an_answer_that_is_no_message(vm_home: Path, data: bytes, said: str) -> None:
    path = vm_home / "cache.sock"
    async with playing(path, Script().answer(data).answers, hangs=True):
        assert str(await failure(path)).startswith(f"failed to Config: {said}")


async def test_an_answer_of_another_kind(vm_home: Path) -> None:
    path = vm_home / "cache.sock"
    async with playing(path, Script().answer(b"<html>", content_type="text/html").answers, hangs=True):
        assert str(await failure(path)).startswith("failed to Config: rpc error: code = Unknown desc = ")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (GrpcVmConfig(), "not JSON: "),
        (GrpcVmConfig(data=b"[" * 10_000), "not JSON: "),
        (GrpcVmConfig(data=b'{"HypervisorConfig": {"MemorySize": "1"}}'), "HypervisorConfig.MemorySize: must be "),
        (GrpcVmConfig(data=b'{"AgentType": "x"}'), "agent type x is not supported by VM cache"),
    ],
)
async def test_a_config_that_is_none(vm_home: Path, config: GrpcVmConfig, said: str) -> None:
    path = vm_home / "cache.sock"
    async with playing(path, scripted(config)):
        error = await failure(path)
    assert str(error).startswith(f"failed to convert JSON to VMConfig: {said}")
    assert (error.call, error.code) == ("Config", "")


@pytest.mark.parametrize(
    ("config", "vm", "said"),
    [
        (CONFIG, GrpcVm(id="x"), "failed to convert JSON to VM 'x': not JSON: "),
        (
            CONFIG,
            GrpcVm(id="x", hypervisor=b'{"State": 1}'),
            "failed to convert JSON to VM 'x': State: must be",
        ),
        (
            GrpcVmConfig(data=b'{"HypervisorType":"clh"}'),
            VM,
            "failed to convert JSON to VM 'vm-1': cloudHypervisor is not supported by VM cache",
        ),
    ],
)
async def test_a_vm_that_is_none_is_named(vm_home: Path, config: GrpcVmConfig, vm: GrpcVm, said: str) -> None:
    path = vm_home / "cache.sock"
    async with playing(path, scripted(config, vm)):
        assert str(await failure(path)).startswith(said)


@pytest.mark.parametrize("steps", range(0, 60, 2))
async def test_cancelled_at_any_time_it_takes_no_vm_or_returns_it(vm_home: Path, steps: int) -> None:
    """A VM that the server gave is never dropped."""
    got = []
    async with serving_cache(vm_home, base_vm(1)) as served:
        async with trio.open_nursery() as nursery:

            async def client() -> None:
                async with open_cache_client(served.path, timeout_s=LIMIT_S) as client:
                    nursery.start_soon(cancel)
                    got.append(await client.take_base_vm(timeout_s=LIMIT_S))

            async def cancel() -> None:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

            nursery.start_soon(client)
        source = served.source
        await served.until(lambda: source.waiting == 0 and len(source.ready) + len(source.discarded) + len(got) == 1)


async def test_the_callers_own_errors_pass(vm_home: Path) -> None:
    theirs = ServiceUnavailableError(socket_path=Path("x"), reason="theirs", remedy="")
    path = vm_home / "cache.sock"
    async with playing(path, scripted(CONFIG), hangs=True):
        with pytest.raises(ServiceUnavailableError) as error:
            async with open_cache_client(path, timeout_s=LIMIT_S):
                raise theirs
    assert error.value is theirs
