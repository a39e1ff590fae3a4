"""GET /metrics over HTTP: what is answered, and that no client can hold it up."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from pool.host.endpoint import EndpointError
from pool.host.metrics_socket import TcpPlace, check_metrics_place, open_metrics_socket, place_of
from pool.observe.scraping import CLIENT_LIMIT_S, MAX_CLIENTS, MAX_REQUEST_BYTES, ScrapeServer
from pool.settings.config import ConfigError, parse_settings

TEXT = b"vmpool_pool_size 2.0\n"
GET = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"


async def text() -> bytes:
    await trio.lowlevel.checkpoint()
    return TEXT


@asynccontextmanager
async def scraping(path: Path) -> AsyncIterator[Path]:
    with open_metrics_socket(path) as listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(ScrapeServer(listener=listener, text=text, content_type="text/plain").run)
            yield path
            nursery.cancel_scope.cancel(reason="the test is over")


async def ask(path: Path, request: bytes = GET) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; the server closes the connection."""
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(request)
        said = b"".join([chunk async for chunk in stream])
    head, _, body = said.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert int(headers["content-length"]) == len(body)
    return int(status.split()[1]), headers, body


async def test_the_metrics(tmp_path: Path) -> None:
    async with scraping(tmp_path / "m.sock") as path:
        for request in (
            GET,
            GET.replace(b"/metrics", b"/metrics?x=y"),
            GET.replace(b"/metrics", b"http://here:9464/metrics"),
            GET.replace(b"1.1", b"1.0"),
            GET * 30,
        ):
            status, headers, body = await ask(path, request)
            assert (status, headers["content-type"], body) == (200, "text/plain", TEXT)


@pytest.mark.parametrize(("target", "status", "length"), [(b"/metrics", 200, len(TEXT)), (b"/", 404, 24)])
async def test_head_is_answered_without_the_body(tmp_path: Path, target: bytes, status: int, length: int) -> None:
    async with scraping(tmp_path / "m.sock") as path, await trio.open_unix_socket(path) as stream:
        await stream.send_all(b"HEAD " + target + b" HTTP/1.1\r\nHost: here\r\n\r\n")
        said = b"".join([chunk async for chunk in stream])
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Length: %d\r\n" % length in said
    assert said.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", 404),
        (b"GET /metrics/x HTTP/1.1\r\nHost: here\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nxx", 405),
        (b"PUT /metrics HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET http://here/ HTTP/1.1\r\nHost: here\r\n\r\n", 404),
        (b"GET ftp://here/metrics HTTP/1.1\r\nHost: here\r\n\r\n", 404),
        (b"hello\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: here\r\nX: " + b"x" * MAX_REQUEST_BYTES, 431),
    ],
)
async def test_everything_else_is_refused(tmp_path: Path, request_: bytes, status: int) -> None:
    async with scraping(tmp_path / "m.sock") as path:
        found, headers, _ = await ask(path, request_)
        assert found == status
        assert headers.get("allow") == ("get, head" if status == 405 else None)
        assert (await ask(path))[0] == 200


async def test_one_who_goes_away_costs_nothing(tmp_path: Path) -> None:
    async with scraping(tmp_path / "m.sock") as path:
        for said in (b"", b"GET /met", GET):
            stream = await trio.open_unix_socket(path)
            await stream.send_all(said)
            await stream.aclose()
        assert (await ask(path))[0] == 200


async def test_clients_who_say_nothing_keep_others_out_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool.observe.scraping.CLIENT_LIMIT_S", 0.05)
    async with scraping(tmp_path / "m.sock") as path:
        silent = [await trio.open_unix_socket(path) for _ in range(MAX_CLIENTS + 1)]
        with trio.fail_after(20):
            assert (await ask(path))[0] == 200
        for stream in silent:
            await stream.aclose()


def test_a_client_has_enough_time() -> None:
    assert CLIENT_LIMIT_S >= 10.0


@pytest.mark.logs_error("a scrape failed")
async def test_a_scrape_that_fails_is_one_clients(tmp_path: Path) -> None:
    asked = 0

    async def sometimes() -> bytes:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise RuntimeError("a bug")
        return await text()

    with open_metrics_socket(tmp_path / "m.sock") as listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(ScrapeServer(listener=listener, text=sometimes, content_type="text/plain").run)
            async with await trio.open_unix_socket(tmp_path / "m.sock") as stream:
                await stream.send_all(GET)
                assert [chunk async for chunk in stream] == []
            assert (await ask(tmp_path / "m.sock"))[0] == 200
            nursery.cancel_scope.cancel(reason="the test is over")


# -- where -----------------------------------------------------------------------------------------------------------


def test_a_unix_socket_is_its_owners_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    with open_metrics_socket(path):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


def test_what_a_killed_service_left_is_replaced_and_what_another_serves_is_not(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with (
        open_metrics_socket(path),
        pytest.raises(EndpointError, match=r"metrics.listen: cannot listen on .*: Address already in use"),
        open_metrics_socket(path),
    ):
        pass


def test_what_another_service_put_in_its_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    with contextlib.ExitStack() as another:
        with open_metrics_socket(path):
            path.unlink()
            another.enter_context(open_metrics_socket(path))
        assert path.is_socket()
    assert not path.exists()


def test_a_path_that_is_too_long_is_said_to_be(tmp_path: Path) -> None:
    with (
        pytest.raises(EndpointError, match="m: File name too long; choose another place"),
        open_metrics_socket(tmp_path / ("m" * 200)),
    ):
        pass


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("none/m.sock", "No such file or directory"),
        ("file/m.sock", "Not a directory"),
        ("file", "Address already in use"),
        ("m" * 200, "File name too long"),
    ],
)
def test_a_place_is_checked_before_anybody_listens(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EndpointError, match=rf"metrics\.listen: .*: {said}; choose another place"):
        check_metrics_place(tmp_path / place, made=tmp_path)


def test_a_port_that_this_host_does_not_give_is_noticed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    with pytest.raises(EndpointError, match=r"\[::1\]:9464: Cannot assign requested address"):
        monkeypatch.setattr(socket.socket, "bind", refuse)
        check_metrics_place(place_of("[::1]:9464"), made=Path("/run"))


def test_the_place_of_a_service_that_runs_is_free_for_its_successor(tmp_path: Path) -> None:
    with open_metrics_socket(tmp_path / "m.sock"), socket.socket() as port:
        check_metrics_place(tmp_path / "m.sock", made=tmp_path)
        port.bind(("127.0.0.1", 0))
        port.listen()
        check_metrics_place(place_of(f"127.0.0.1:{port.getsockname()[1]}"), made=tmp_path)
    check_metrics_place(tmp_path / "made" / "m.sock", made=tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_a_service_without_a_network_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under the packaged unit."""

    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", refuse)
    with (
        pytest.raises(EndpointError, match="Address family not supported by protocol; choose another place"),
        open_metrics_socket(place_of("127.0.0.1:9464")),
    ):
        pass


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(EndpointError), open_metrics_socket(path):
        pass
    assert path.read_text() == "x"


async def test_a_loopback_port() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = place_of(f"127.0.0.1:{port}")
    assert isinstance(place, TcpPlace)
    with open_metrics_socket(place) as listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(ScrapeServer(listener=listener, text=text, content_type="text/plain").run)
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(GET)
                assert b"".join([chunk async for chunk in stream]).endswith(TEXT)
            nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.parametrize("listen", ["127.0.0.1:9464", "127.0.0.2:1", "[::1]:9464", "unix:/run/vmpool/m.sock"])
def test_places(listen: str) -> None:
    place = place_of(listen)
    assert str(place) == listen.removeprefix("unix:")


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("0.0.0.0:9464", "is no loopback address"),
        ("192.0.2.1:9464", "is no loopback address"),
        ("[::]:9464", "is no loopback address"),
        ("localhost:9464", "is no place to listen"),
        ("127.0.0.1", "is no place to listen"),
        ("127.0.0.1:0", "has no port"),
        ("127.0.0.1:70000", "has no port"),
        ("999.0.0.1:1", "has no IP address"),
        ("unix:m.sock", "has no absolute path"),
        ("", "is no place to listen"),
    ],
)
def test_a_place_where_others_could_read_or_that_is_none_is_refused(listen: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_settings(f"[metrics]\nlisten = {json.dumps(listen)}\n[profiles.p]\n", source="test")
    (problem,) = refused.value.problems
    assert problem.startswith(f"metrics.listen: {listen!r} {said}")
