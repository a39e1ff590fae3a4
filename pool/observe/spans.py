"""Trace spans, as the service records them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final, Protocol

import attrs

Attribute = str | int | float | bool


@attrs.frozen(kw_only=True)
class Stage:
    """A part of something that is over. In seconds, from the beginning of the whole."""

    name: str
    begins_s: float
    lasts_s: float


class Spans(Protocol):
    def span(self, name: str, **attributes: Attribute) -> contextlib.AbstractContextManager[None]:
        """Around a block. Those that begin in it, in tasks that begin in it too, are its children."""

    def record(
        self, name: str, *, lasted_s: float, stages: Sequence[Stage], parent: str = "", **attributes: Attribute
    ) -> None:
        """What has ended just now, with its stages as children. `parent`: a caller's `traceparent`, or nothing."""


class NoSpans:
    # The names of the arguments are the protocol's.
    def span(self, name: str, **attributes: Attribute) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        return contextlib.nullcontext()

    def record(
        self, name: str, *, lasted_s: float, stages: Sequence[Stage], parent: str = "", **attributes: Attribute
    ) -> None:
        pass


NO_SPANS: Final = NoSpans()
