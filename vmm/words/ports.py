"""Addresses in the guest."""

from __future__ import annotations

from typing import Final

import attrs
from attrs.validators import and_, ge, le

LOOPBACK: Final = "127.0.0.1"


@attrs.frozen(kw_only=True)
class TcpAddress:
    port: int = attrs.field(validator=and_(ge(0), le(65535)))
    """0 only to listen: a free one."""
    host: str = LOOPBACK
    """An IPv4 or IPv6 address."""


@attrs.frozen(kw_only=True)
class UnixAddress:
    path: bytes
    """Absolute, at most 107 bytes."""


GuestAddress = TcpAddress | UnixAddress
