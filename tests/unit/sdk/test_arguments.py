"""What a program gives that cannot be meant is refused before it is on its way, as the service would refuse it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from vmpool import CallError, CallTimeoutError
from vmpool.aio.ports import Ports
from vmpool.client.connection import Connection
from vmpool.client.convert_guest import exec_start, port_address


def time_limit_ms(timeout: float | None) -> int:
    start = exec_start(
        "lease-1",
        "true",
        environment=None,
        cwd=None,
        user="",
        groups=(),
        timeout=timeout,
        limits=None,
        terminal=None,
        leave_children=False,
    )
    return start.time_limit_ms


@pytest.mark.parametrize(("timeout", "expected"), [(None, 0), (0.0001, 1), (1.5, 1500)])
def test_a_time_limit_is_in_milliseconds_and_none_is_0(timeout: float | None, expected: int) -> None:
    assert time_limit_ms(timeout) == expected


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.001])
def test_a_time_limit_that_has_passed_is_not_taken_for_none(timeout: float) -> None:
    with pytest.raises(CallError, match=r"^timeout: .* set seconds above 0, or None for no limit$") as raised:
        time_limit_ms(timeout)
    assert raised.value.status == "INVALID_ARGUMENT"


def test_a_port_is_a_number_or_a_path() -> None:
    assert port_address(65535, "::1").tcp_port == 65535
    assert port_address("/run/x").unix_path == b"/run/x"


@pytest.mark.parametrize("wrong", [-1, 65536, "", "8080", "run/x"])
def test_a_forward_to_what_is_no_port_is_refused_before_anybody_connects(wrong: int | str) -> None:
    with pytest.raises(CallError, match=r"^port: .*") as raised:
        Ports(Connection(socket_path=Path("/nowhere")), "lease-1").forward(wrong)
    assert raised.value.status == "INVALID_ARGUMENT"


class Silent(Connection):
    """To a service that does not answer in time."""

    async def ask(self, *_: Any, **__: Any) -> Any:
        raise CallTimeoutError(status="DEADLINE_EXCEEDED", message="the deadline of the call has passed")


@pytest.mark.parametrize(("where", "named"), [(80, "port 80"), ("/run/x", "/run/x")])
def test_waiting_in_vain_says_for_what_and_how_long(where: int | str, named: str) -> None:
    ports = Ports(Silent(socket_path=Path("/nowhere")), "lease-1")
    with pytest.raises(TimeoutError, match=f"^no server in the guest accepted a connection at {named} within 2 s$"):
        asyncio.run(ports.wait_port(where, timeout=2))
