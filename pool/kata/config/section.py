"""Tables of Kata's configuration file: typed keys, with all problems collected and unknown keys ignored."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from pool.kata.errors import WireError
from pool.kata.records.gokinds import TEXT, Kind

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)


def table_of(tables: Mapping[str, Any], name: str, problems: list[str], *, prefix: str = "") -> Mapping[str, Any]:
    """One of the tables; empty if missing. A value that is not a table is added to `problems`."""
    table = tables.get(name, {})
    if isinstance(table, dict):
        return table
    problems.append(f"{prefix}{name}: must be a table")
    return {}


@attrs.define(kw_only=True)
class Section:
    """`problems` is shared by all tables of a file, so that all are reported at once."""

    path: str
    """Path of the table, such as hypervisor.qemu."""
    table: Mapping[str, Any]
    problems: list[str]

    def get(self, key: str, kind: Kind[T], default: T | None = None) -> T:
        """The key's value; `default`, or else Go's zero value, if it is missing or of the wrong type."""
        if key in self.table:
            try:
                return kind.decode(self.table[key], f"{self.path}.{key}")
            except WireError as error:
                self.problems.append(str(error))
        return kind.zero if default is None else default

    def text(self, key: str, default: str = "") -> str:
        """Like `get`; an empty string counts as missing."""
        return self.get(key, TEXT) or default

    def choice(self, key: str, what: str, plural: str, *, among: tuple[str, ...], default: str) -> str:
        """A value from one of Kata's fixed sets, refused with Kata's text."""
        value = self.text(key, default)
        if value not in (*among, default):
            self.fault(key, f"Invalid hypervisor {what} {value} specified (supported {plural}: [{' '.join(among)}])")
        return value

    def member(self, key: str, kind: type[E], default: E) -> E:
        """A member of one of our enumerations, by its value."""
        value = self.get(key, TEXT, default.value)
        try:
            return kind(value)
        except ValueError:
            self.fault(key, f"must be one of {', '.join(repr(member.value) for member in kind)}")
            return default

    def file(self, key: str, default: str = "") -> str:
        """A path that must exist, without its symbolic links; empty if neither key nor default name one."""
        value = self.text(key, default)
        return self.existing(key, value) if value else ""

    def existing(self, key: str, value: str) -> str:
        """The path without symbolic links, if the file exists."""
        if not value:
            self.fault(key, "path must be specified")
            return value
        try:
            return str(Path(value).resolve(strict=True))
        except FileNotFoundError:
            self.fault(key, f"file {Path(value).absolute()} does not exist")
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop; ValueError: a NUL
            self.fault(key, str(error))
        return value

    def path_text(self, key: str, default: str = "") -> str:
        """Like `text`, for a path that need not exist yet."""
        value = self.text(key, default)
        if "\0" in value:
            self.fault(key, "a path cannot contain a NUL")
        return value

    def fault(self, key: str, problem: str) -> None:
        self.problems.append(f"{self.path}.{key}: {problem}")
