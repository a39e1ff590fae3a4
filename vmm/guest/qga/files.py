"""Files through qemu-ga: opened, read and written piece by piece, and moved into place by a shell."""

from __future__ import annotations

import base64
import errno
import os
import posixpath
import secrets
from functools import partial
from typing import Any, Final

from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.guest.qga import execution
from vmm.guest.qga.channel import QgaChannel
from vmm.guest.qga.protocol import errno_of

_PIECE: Final = 48 * 1024
"""Bytes of one request. qemu-ga holds several copies of a piece, and does nothing else meanwhile."""

_NO_DIRECTORY: Final = 72
_IS_DIRECTORY: Final = 73

_CREATE: Final = f"""\
[ -d "$1" ] || exit {_NO_DIRECTORY}
[ ! -d "$2" ] || exit {_IS_DIRECTORY}
umask 077 && : > "$0"
"""
"""qemu-ga itself would create the file with mode 0666."""

_PLACE: Final = 'chmod -- "$2" "$0" && mv -f -- "$0" "$1"'

_ERRORS: Final = {_NO_DIRECTORY: errno.ENOENT, _IS_DIRECTORY: errno.EISDIR}


async def put(channel: QgaChannel, path: str, data: bytes, *, mode: int) -> None:
    """Writes beside the path, then renames. If cancelled or failed, the old file stays. Raises AgentError."""
    directory = posixpath.dirname(path) or "."
    new = f"{path}.{secrets.token_hex(8)}.new"
    try:
        await _shell(channel, _CREATE, new, directory, path)
        await write(channel, new, data, request="put")
        await _shell(channel, _PLACE, new, path, f"{mode:o}")
    except BaseException:
        channel.undo_soon(partial(_shell, channel, 'rm -f -- "$0"', new))
        raise


async def get(channel: QgaChannel, path: str, *, limit: int, request: str = "get") -> bytes:
    """The file's content. Raises AgentRequestError with code "EFBIG" above `limit` bytes, AgentError."""
    content = bytearray()
    handle = await _open(channel, path, "r", request=request)
    try:
        while True:
            piece, is_end = await _read(channel, handle, _PIECE, request=request)
            content += piece
            if len(content) > limit:
                message = f"the file has more than {limit} bytes; ask for a smaller one or raise the limit"
                raise AgentRequestError(request=request, code="EFBIG", message=message)
            if is_end:
                return bytes(content)
            if not piece:
                raise AgentProtocolError("qemu-ga read no bytes before the end of the file")
    finally:
        channel.undo_soon(partial(_close, channel, handle, request=request))


async def read_some(channel: QgaChannel, path: str, count: int, *, request: str) -> bytes:
    """The first bytes of an endless file such as /dev/urandom. Raises AgentError."""
    handle = await _open(channel, path, "r", request=request)
    try:
        return (await _read(channel, handle, count, request=request))[0]
    finally:
        channel.undo_soon(partial(_close, channel, handle, request=request))


async def write(channel: QgaChannel, path: str, data: bytes, *, request: str) -> None:
    """Overwrites a file or writes to a device. The data is flushed on return. Raises AgentError."""
    handle = await _open(channel, path, "w", request=request)
    try:
        for start in range(0, len(data), _PIECE):
            view = memoryview(data)[start : start + _PIECE]
            while view:
                arguments = {"handle": handle, "buf-b64": base64.b64encode(view).decode()}
                view = view[_written(await channel.execute("guest-file-write", arguments, request=request), view) :]
    except BaseException:
        channel.undo_soon(partial(_close, channel, handle, request=request))
        raise
    await _close(channel, handle, request=request)


async def _open(channel: QgaChannel, path: str, mode: str, *, request: str) -> int:
    async def undo(value: Any) -> None:
        await _close(channel, _handle(value), request=request)

    arguments = {"path": path, "mode": mode}
    return _handle(await channel.execute("guest-file-open", arguments, request=request, undo=undo))


async def _read(channel: QgaChannel, handle: int, count: int, *, request: str) -> tuple[bytes, bool]:
    value = await channel.execute("guest-file-read", {"handle": handle, "count": count}, request=request)
    _number(value, "count")
    return execution.decode(value.get("buf-b64")), value.get("eof") is True


async def _close(channel: QgaChannel, handle: int, *, request: str) -> None:
    await channel.execute("guest-file-close", {"handle": handle}, request=request)


async def _shell(channel: QgaChannel, script: str, *arguments: str) -> None:
    end = await execution.run(channel, [execution.SHELL, "-c", script, *arguments], request="put")
    if end.status != 0:
        number = _ERRORS.get(end.status or 0)
        if number is None:
            raise AgentRequestError(request="put", code=errno_of(end.said) or "EIO", message=end.said)
        raise AgentRequestError(request="put", code=errno.errorcode[number], message=os.strerror(number))


def _handle(value: Any) -> int:
    if type(value) is not int:
        raise AgentProtocolError("qemu-ga sent a file handle that is not a number")
    return value


def _written(value: Any, view: memoryview) -> int:
    written = _number(value, "count")
    if not 0 < written <= len(view):
        raise AgentProtocolError(f"qemu-ga wrote {written} of {len(view)} bytes")
    return written


def _number(value: Any, name: str) -> int:
    found = value.get(name) if isinstance(value, dict) else None
    if type(found) is not int or found < 0:
        raise AgentProtocolError(f"qemu-ga's answer has no valid number {name}")
    return found
