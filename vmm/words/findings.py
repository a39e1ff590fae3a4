"""A finding about a host: a verdict, and a fix for a problem."""

from __future__ import annotations

import enum

import attrs


class Verdict(enum.Enum):
    OK = "ok"
    WARNING = "warning"
    """Works, but not as well as it could."""
    FAILURE = "failure"
    """The service does not start like this, or a profile of it cannot make a single VM."""


@attrs.frozen(kw_only=True)
class Finding:
    subject: str = ""
    verdict: Verdict = Verdict.OK
    detail: str
    fix: str = ""
