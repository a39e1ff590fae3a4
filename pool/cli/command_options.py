"""The options of `run`, `exec` and `start`: what is started in a guest, and how."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import attrs
import click

from pool.cli.guest_command import guest_argv
from pool.cli.words import SECONDS, TEXT, VARIABLE, utf8

_RESOURCES: Final = ("as", "core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "rss", "stack")
_UNLIMITED: Final = "unlimited"
_INFINITY: Final = 2**64 - 1
"""RLIM_INFINITY."""

_ResourceLimit = tuple[str, tuple[int, int]]


class _Limit(click.ParamType[_ResourceLimit]):
    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> _ResourceLimit:
        if isinstance(value, tuple):  # click converts converted values again
            return value
        resource, equals, text = utf8(str(value), param, ctx).partition("=")
        if not equals or resource not in _RESOURCES:
            self.fail(f"{value!r} is not NAME=SOFT[:HARD] with a NAME of {', '.join(_RESOURCES)}.", param, ctx)
        soft, colon, hard = text.partition(":")
        return resource, (self._number(soft, param, ctx), self._number(hard if colon else soft, param, ctx))

    def _number(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if text == _UNLIMITED:
            return _INFINITY
        if not (text.isascii() and text.isdigit() and int(text) < _INFINITY):
            self.fail(f"{text!r} is neither a number nor {_UNLIMITED}.", param, ctx)
        return int(text)


@attrs.frozen(kw_only=True)
class Started:
    """A command for a guest, with fields named as the arguments of `Vm.exec` and `Vm.start`."""

    command: str | tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str | None
    user: str
    groups: tuple[str, ...]
    timeout: float | None
    limits: Mapping[str, tuple[int, int]]
    leave_children: bool

    def arguments(self) -> dict[str, Any]:
        return attrs.asdict(self, recurse=False)


_OPTIONS: Final = (
    guest_argv,
    click.option(
        "--env",
        "-e",
        "variables",
        multiple=True,
        type=VARIABLE,
        metavar="NAME[=VALUE]",
        help="Environment variable for the command; without a value, that of this environment. Can be repeated.",
    ),
    click.option("--workdir", "-w", type=TEXT, help="Working directory in the guest."),
    click.option("--user", "-u", type=TEXT, help="User in the guest, by name or number; default: root."),
    click.option(
        "--group",
        "groups",
        multiple=True,
        type=TEXT,
        help="Group in place of the user's own, by name or number; the first is the primary one.",
    ),
    click.option(
        "--limit",
        "limits",
        multiple=True,
        type=_Limit(),
        metavar="NAME=SOFT[:HARD]",
        help=f"Resource limit, as setrlimit(2) has it, such as nofile=1024; a number or {_UNLIMITED}.",
    ),
    click.option("--time-limit", "time_limit_s", type=SECONDS, help="Seconds until the command gets SIGKILL."),
    click.option(
        "--shell", "as_line", is_flag=True, help="CMD is a line for the guest's /bin/sh; words are joined by spaces."
    ),
    click.option(
        "--leave-children",
        is_flag=True,
        help="Leave running what the command has started, when it ends; else: SIGKILL.",
    ),
)


def command_options(command: Any) -> Any:
    """Adds these options to a command, which gets them as one argument `started`."""

    @functools.wraps(command)
    def collected(
        *,
        argv: tuple[str, ...],
        variables: tuple[tuple[str, str], ...],
        workdir: str | None,
        user: str | None,
        groups: tuple[str, ...],
        limits: tuple[_ResourceLimit, ...],
        time_limit_s: float | None,
        as_line: bool,
        leave_children: bool,
        **others: Any,
    ) -> Any:
        started = Started(
            command=" ".join(argv) if as_line else argv,
            environment=dict(variables),
            cwd=workdir,
            user=user or "",
            groups=groups,
            timeout=time_limit_s,
            limits=dict(limits),
            leave_children=leave_children,
        )
        return command(started=started, **others)

    decorated: Any = collected
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
