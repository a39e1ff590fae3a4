"""What a word of the command line may be, by what it means.

A word is any bytes, and may be empty where a variable is not set. What the service is told is text, so a word that is
not UTF-8 is refused here, where it can be named; paths that only this host's kernel sees may be anything.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Final

import click

MAX_UINT32: Final = 2**32 - 1
"""What the wire takes for a number; the service has its own idea."""


class _Text(click.ParamType[str]):
    """For the service."""

    name = "text"

    def __init__(self, *, may_be_empty: bool = False) -> None:
        self._may_be_empty = may_be_empty

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not (text or self._may_be_empty):
            self.fail("it is empty.", param, ctx)
        return _utf8(text, param, ctx)


class _Variable(click.ParamType[tuple[str, str]]):
    name = "variable"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):  # click converts defaults, and what it has converted
            return value
        name, equals, text = _utf8(str(value), param, ctx).partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, text


class HostPath(click.Path[Path]):
    """A path that this process uses itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not os.fspath(value):
            self.fail("it is empty.", param, ctx)
        return super().convert(value, param, ctx)


class _ServicePath(HostPath):
    """A path that the service uses: it has another working directory, and is told of it in UTF-8."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx).absolute()
        _utf8(os.fspath(path), param, ctx)
        return path


class _Seconds(click.FloatRange):
    """A time that ends: click takes inf and nan for numbers in a range."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            known = float(value)
        except ValueError:
            known = math.nan
        if not math.isfinite(known):
            self.fail(f"{value!r} is no time in seconds.", param, ctx)
        return float(super().convert(known, param, ctx))


TEXT: Final = _Text()
TEXT_OR_NOTHING: Final = _Text(may_be_empty=True)
VARIABLE: Final = _Variable()
"""NAME=VALUE."""
SERVICE_PATH: Final = _ServicePath()
SECONDS: Final = _Seconds(min=0.001, max=30 * 24 * 3600)


def _utf8(text: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise click.BadParameter(f"{text!r} is not UTF-8", ctx, param) from None
    return text
