"""The syntax of QEMU's command line."""

from __future__ import annotations

from pathlib import Path


def options(kind: str | None = None, /, **values: object) -> str:
    """QEMU's `kind,key=value,...`; in values a comma is doubled, in keys an underscore stands for a dash."""
    parts = [f"{key.replace('_', '-')}={str(value).replace(',', ',,')}" for key, value in values.items()]
    return ",".join(parts if kind is None else [kind, *parts])


def inherited(descriptor: int) -> Path:
    """The path by which a process reopens its own descriptor: it needs the right to the file, and to no directory."""
    return Path(f"/proc/self/fd/{descriptor}")
