"""Fields of requests that name something in a guest, checked before the guest is involved."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from pool.rpc.arguments import MAX_PATH_BYTES
from pool.rpc.errors import InvalidRequestError
from vmm.words.commands import TerminalSize
from vmm.words.ports import LOOPBACK, GuestAddress, TcpAddress, UnixAddress
from vmpool.wire.generated.vmpool import v1 as wire

MAX_COMPONENT_BYTES: Final = 255
"""NAME_MAX."""

MAX_SOCKET_PATH_BYTES: Final = 107
"""Of a Unix socket: sizeof(sun_path) without the NUL."""

MAX_USER_BYTES: Final = 255
MAX_GROUPS: Final = 64
MAX_MODE: Final = 0o7777
MAX_OFFSET: Final = 2**63 - 1
"""Of a file: off_t."""
MAX_SIGNAL: Final = 64
MAX_TERMINAL_SIDE: Final = 2**16 - 1
"""Rows or columns: struct winsize."""

_SHOWN: Final = 64


def kind_of(message: Any, *kinds: str, field: str = "kind") -> str:
    """Which of the kinds the message has. Raises InvalidRequestError unless it is exactly one."""
    found = [kind for kind in kinds if getattr(message, kind) is not None]
    if len(found) != 1:
        names = f"{', '.join(kinds[:-1])} and {kinds[-1]}"
        raise InvalidRequestError(
            field=field, reason=f"has {' and '.join(found) or 'nothing'}; set exactly one of {names}"
        )
    return found[0]


def start_of(request: Any | None, *kinds: str) -> Any:
    """The `start` of a call's first request, which may be of these kinds too. Raises InvalidRequestError for
    any other, and for None: there are no requests.
    """
    if request is None or kind_of(request, "start", *kinds) != "start":
        raise InvalidRequestError(field="start", reason="must be the first message of the call")
    return request.start


def path_of(field: str, path: bytes) -> bytes:
    """Raises InvalidRequestError unless it can be the absolute path of something."""
    if not path:
        raise InvalidRequestError(field=field, reason="is empty; set an absolute path")
    if not path.startswith(b"/"):
        raise InvalidRequestError(field=field, reason=f"{_shown(path)} is relative; set an absolute path")
    _check_text(field, path)
    longest = max(len(component) for component in path.split(b"/"))
    if longest > MAX_COMPONENT_BYTES:
        raise InvalidRequestError(
            field=field, reason=f"has a component of {longest} bytes; Linux's maximum is {MAX_COMPONENT_BYTES}"
        )
    return path


def link_target_of(field: str, target: bytes) -> bytes:
    """What a symbolic link can point to: any text, also a relative path."""
    if not target:
        raise InvalidRequestError(field=field, reason="is empty; set what the link points to")
    _check_text(field, target)
    return target


def _check_text(field: str, path: bytes) -> None:
    if b"\0" in path:
        raise InvalidRequestError(field=field, reason="has a NUL byte; remove it")
    if len(path) > MAX_PATH_BYTES:
        raise InvalidRequestError(
            field=field, reason=f"has {len(path)} bytes; Linux's maximum for a path is {MAX_PATH_BYTES}"
        )


def user_of(field: str, name: str) -> str:
    """A user or group, by name or number; empty for none."""
    size = len(name.encode())
    if size > MAX_USER_BYTES:
        raise InvalidRequestError(field=field, reason=f"has {size} bytes; at most {MAX_USER_BYTES} are allowed")
    if any(character in ":/\n\0" for character in name):
        raise InvalidRequestError(field=field, reason=f"{name[:_SHOWN]!r} is not a name or number of the guest")
    return name


def mode_of(field: str, mode: int | None) -> int | None:
    if mode is not None and mode > MAX_MODE:
        raise InvalidRequestError(field=field, reason=f"{mode:o} is out of range; the maximum is {MAX_MODE:o}")
    return mode


def offset_of(field: str, offset: int) -> int:
    if offset > MAX_OFFSET:
        raise InvalidRequestError(field=field, reason=f"{offset} is out of range; the maximum is {MAX_OFFSET}")
    return offset


def signal_of(number: int) -> int:
    if not 1 <= number <= MAX_SIGNAL:
        raise InvalidRequestError(field="signal", reason=f"{number} is not a signal number; use 1 to {MAX_SIGNAL}")
    return number


def terminal_size_of(field: str, terminal: wire.Terminal) -> TerminalSize:
    usual = TerminalSize()
    for side in ("rows", "columns"):
        value = getattr(terminal, side)
        if value > MAX_TERMINAL_SIDE:
            raise InvalidRequestError(
                field=f"{field}.{side}", reason=f"{value} is out of range; the maximum is {MAX_TERMINAL_SIDE}"
            )
    return TerminalSize(rows=terminal.rows or usual.rows, columns=terminal.columns or usual.columns)


def address_of(field: str, address: wire.PortAddress | None, *, to_listen: bool = False) -> GuestAddress:
    """`to_listen`: port 0 is a free one."""
    if address is None:
        raise InvalidRequestError(field=field, reason="is missing; set tcp_port or unix_path")
    match kind_of(address, "tcp_port", "unix_path", field=field):
        case "unix_path":
            if address.host:
                raise InvalidRequestError(field=f"{field}.host", reason="is for tcp_port only; leave it out")
            path = path_of(f"{field}.unix_path", address.unix_path or b"")
            if len(path) > MAX_SOCKET_PATH_BYTES:
                raise InvalidRequestError(
                    field=f"{field}.unix_path",
                    reason=f"has {len(path)} bytes; Linux's maximum for a socket is {MAX_SOCKET_PATH_BYTES}",
                )
            return UnixAddress(path=path)
        case _:
            return TcpAddress(
                port=_port_of(f"{field}.tcp_port", address.tcp_port or 0, least=0 if to_listen else 1),
                host=_host_of(f"{field}.host", address.host),
            )


def _port_of(field: str, port: int, *, least: int) -> int:
    if not least <= port <= 65535:
        raise InvalidRequestError(field=field, reason=f"{port} is not a port; use {least} to 65535")
    return port


def _host_of(field: str, host: str) -> str:
    if not host:
        return LOOPBACK
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise InvalidRequestError(
            field=field, reason=f"{host[:_SHOWN]!r} is not an IPv4 or IPv6 address; names are not looked up"
        ) from None


def _shown(path: bytes) -> str:
    return repr(path[:_SHOWN].decode(errors="backslashreplace"))
