"""`[factory]`, and runtime-rs's table instead: `[hypervisor.qemu.factory]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from pool.kata.config.section import Section, table_of
from pool.kata.records.config import DEFAULT_CACHE_ENDPOINT, DEFAULT_TEMPLATE_PATH, QEMU
from pool.kata.records.gokinds import FLAG, UINT32

_RUNTIME_RS: Final = f"hypervisor.{QEMU}.factory"
_RUNTIME_RS_KEYS: Final = frozenset({"enable_template", "template_path"})


@attrs.frozen(kw_only=True)
class FactoryTable:
    template: bool
    template_path: str
    template_table: str
    """The table that enables templates: hypervisor.qemu.factory, or factory."""
    cache: int
    cache_endpoint: str

    @property
    def template_key(self) -> str:
        return f"{self.template_table}.enable_template"

    @property
    def of_runtime_rs(self) -> bool:
        return self.template_table == _RUNTIME_RS


def read_factory(tables: Mapping[str, Any], problems: list[str]) -> FactoryTable:
    """Problems go to `problems`. Runtime-rs makes templates only; each of Kata's runtimes ignores the other's table."""
    ours = Section(path="factory", table=table_of(tables, "factory", problems), problems=problems)
    theirs = _of_runtime_rs(tables, problems)
    template = ours.get("enable_template", FLAG)
    path = ours.path_text("template_path", DEFAULT_TEMPLATE_PATH)
    table = ours.path
    if theirs.get("enable_template", FLAG):
        their_path = theirs.path_text("template_path", DEFAULT_TEMPLATE_PATH)
        if template and their_path != path:
            theirs.fault(
                "template_path",
                f"differs from factory.template_path, {path!r}; remove one table",
            )
        template, path, table = True, their_path, theirs.path
    return FactoryTable(
        template=template,
        template_path=path,
        template_table=table,
        cache=ours.get("vm_cache_number", UINT32),
        cache_endpoint=ours.path_text("vm_cache_endpoint", DEFAULT_CACHE_ENDPOINT),
    )


def _of_runtime_rs(tables: Mapping[str, Any], problems: list[str]) -> Section:
    unsaid: list[str] = []  # the reader of the parent tables reports their problems
    qemu = table_of(table_of(tables, "hypervisor", unsaid), QEMU, unsaid)
    table = table_of(qemu, "factory", problems, prefix=f"hypervisor.{QEMU}.")
    section = Section(path=_RUNTIME_RS, table=table, problems=problems)
    for key in sorted(set(table) - _RUNTIME_RS_KEYS):
        section.fault(key, "runtime-rs has no such key; set up a cache under [factory]")
    return section
