"""Requests as bytes, with errors that say which argument is of a wrong type."""

from __future__ import annotations

from typing import Any

import betterproto2
from grpclib.encoding.proto import ProtoCodec


class RequestCodec(ProtoCodec):
    """Raises TypeError for a request that has a value of a wrong type. It does not show the value, which may be a
    secret.
    """

    def encode(self, message: Any, message_type: Any) -> bytes:
        try:
            return super().encode(message, message_type)
        except (AttributeError, TypeError) as error:
            field, kind = _wrong(message)
            raise TypeError(f"{field}: is of type {kind.__name__}, which is wrong") from error


def _wrong(message: Any) -> tuple[str, type[Any]]:
    """The first field, or the key or element of one, that cannot be encoded, and its type."""
    for name, value in vars(message).items():
        if name.startswith("_") or _is_right(message, name, value):
            continue
        match value:
            case betterproto2.Message():
                inner, kind = _wrong(value)
                return f"{name}.{inner}", kind
            case dict():
                return next(
                    (f"{name}[{key!r}]", type(one if isinstance(key, str) else key))
                    for key, one in value.items()
                    if not _is_right(message, name, {key: one})
                )
            case list():
                number, one = next(
                    (number, one) for number, one in enumerate(value) if not _is_right(message, name, [one])
                )
                inner, kind = _wrong(one) if isinstance(one, betterproto2.Message) else ("", type(one))
                return ".".join(filter(None, (f"{name}[{number}]", inner))), kind
            case _:
                return name, type(value)
    return type(message).__name__, type(message)


def _is_right(message: Any, name: str, value: Any) -> bool:
    try:
        bytes(type(message)(**{name: value}))
    except (AttributeError, TypeError):
        return False
    return True
