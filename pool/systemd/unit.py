"""The packaged unit and its user, adapted to the command that the unit starts."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PACKAGED_COMMAND: Final = "/usr/bin/vmpool"
_PLAIN_PATH: Final = re.compile(r"(/[\w.+@~-]+)+", re.ASCII)
_HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))
_PRIVATE: Final = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - nothing is created there


class UnitError(Exception):
    """The unit cannot start this command, or cannot be written. The message says what to do."""


def packaged_unit() -> str:
    return _packaged("vmpool.service")


def packaged_user() -> str:
    """For systemd-sysusers."""
    return _packaged("sysusers.conf")


def unit_for(command: Path, *, places: Iterable[Path] = ()) -> str:
    """The packaged unit with this command, an absolute path; `places` are other paths needed to execute it.

    Raises `UnitError`.
    """
    if not _PLAIN_PATH.fullmatch(str(command)):
        raise UnitError(f"{command} cannot be named in a unit: use an absolute path of letters, digits and ._+@~-")
    places = {command, *places}
    for place in sorted(places):
        if _below(place, _PRIVATE):
            raise UnitError(f"{place} is not visible in the unit, which has its own /tmp and /var/tmp")
    text = _replaced(packaged_unit(), f"ExecStart={_PACKAGED_COMMAND} ", f"ExecStart={command} ")
    if any(_below(place, _HOMES) for place in places):
        text = _replaced(text, "ProtectHome=yes\n", "ProtectHome=read-only\n")
    return text


def _packaged(name: str) -> str:
    return importlib.resources.files("pool.systemd").joinpath(name).read_text(encoding="utf-8")


def _below(place: Path, directories: Iterable[Path]) -> bool:
    return any(place.is_relative_to(directory) for directory in directories)


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)
