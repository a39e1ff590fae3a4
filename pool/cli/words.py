"""Types of command-line arguments.

An argument can be any bytes, and is empty where the shell expands an unset variable. The service takes UTF-8 only, so
other arguments are refused here, where the error can name them. Paths that only this host's kernel sees may be any
bytes.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Final

import click

MAX_UINT32: Final = 2**32 - 1
"""The largest number on the wire; the service has lower maxima."""


class Text(click.ParamType[str]):
    """Text that is sent to the service. Paths of a guest may be any bytes."""

    name = "text"

    def __init__(self, *, may_be_empty: bool = False, any_bytes: bool = False) -> None:
        self._may_be_empty = may_be_empty
        self.any_bytes = any_bytes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not (text or self._may_be_empty):
            self.fail("must not be empty.", param, ctx)
        return text if self.any_bytes else utf8(text, param, ctx)


class _Pair(click.ParamType[tuple[str, str]]):
    name = "pair"

    def __init__(self, key: str, *, known_here: bool = False) -> None:
        self._key = key
        self._known_here = known_here
        """Without a value, it is that of this process's environment."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):  # click converts defaults, and converted values again
            return value
        name, equals, text = utf8(str(value), param, ctx).partition("=")
        if name and not equals and self._known_here:
            return name, self._from_here(name, param, ctx)
        if not name or not equals:
            self.fail(f"{value!r} is not {self._key}=VALUE", param, ctx)
        return name, text

    def _from_here(self, name: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = os.environ.get(name)
        if text is None:
            self.fail(f"{name!r} is not in this environment; set it, or write {name}=VALUE", param, ctx)
        return utf8(text, param, ctx)


class HostPath(click.Path[Path]):
    """A path that this process uses itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not os.fspath(value):
            self.fail("must not be empty.", param, ctx)
        return super().convert(value, param, ctx)


class _ServicePath(HostPath):
    """A path that the service uses: made absolute, since the service has another working directory, and UTF-8."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx).absolute()
        utf8(os.fspath(path), param, ctx)
        return path


class _Seconds(click.FloatRange):
    """A finite time: click accepts inf and nan as numbers in a range."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            known = float(value)
        except ValueError:
            known = math.nan
        if not math.isfinite(known):
            self.fail(f"{value!r} is not a time in seconds.", param, ctx)
        return float(super().convert(known, param, ctx))


TEXT: Final = Text()
TEXT_OR_NOTHING: Final = Text(may_be_empty=True)
LABEL: Final = _Pair("KEY")
"""KEY=VALUE."""
VARIABLE: Final = _Pair("NAME", known_here=True)
"""NAME=VALUE, or NAME of a variable of this process, so that a secret is on no command line."""
SERVICE_PATH: Final = _ServicePath()
SECONDS: Final = _Seconds(min=0.001, max=30 * 24 * 3600)


def utf8(text: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise click.BadParameter(f"{text!r} is not UTF-8", ctx, param) from None
    return text
