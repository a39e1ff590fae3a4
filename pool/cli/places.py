"""Places that `cp` copies from and to, and where something lands there. Pure."""

from __future__ import annotations

import posixpath
from typing import Final

import attrs

STANDARD: Final = "-"


class PlaceError(Exception):
    """Says what is wrong with a place, and how to put it right."""


@attrs.frozen
class HostPlace:
    path: str


@attrs.frozen
class GuestPlace:
    lease: str
    path: str


@attrs.frozen
class StandardStream:
    """stdin as a source, stdout as a destination."""


Place = HostPlace | GuestPlace | StandardStream


def parse_place(text: str) -> Place:
    """LEASE:PATH, a path of this host, or `-`. A colon behind a slash is part of a path. Raises PlaceError."""
    if text == STANDARD:
        return StandardStream()
    lease, colon, path = text.partition(":")
    if not colon or "/" in lease or not lease:
        return HostPlace(text)
    return GuestPlace(lease, absolute(path, lease=lease))


def absolute(path: str, *, lease: str) -> str:
    """A path of a guest, where no working directory would be meant. Raises PlaceError."""
    if not path.startswith("/"):
        raise PlaceError(f"a path in a guest is absolute: {lease}:/{path}")
    return path


def landing(source: str, destination: str, *, is_directory: bool) -> str:
    """Where a source lands, as with `cp -r`: in the destination, if that is a directory or ends in a slash, under the
    source's own name; else it becomes the destination. `SOURCE/.` is what is in the source.
    """
    inside = posixpath.basename(source) == "."
    if inside or not (is_directory or destination.endswith("/")):
        return destination
    name = posixpath.basename(posixpath.normpath(source))
    return destination if name in ("/", "..", "") else posixpath.join(destination, name)
