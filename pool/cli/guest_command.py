"""Commands whose arguments end in a command for the guest, which must follow `--`.

Without that rule a mistyped option would be taken for the guest's command, as would the word after an unset variable: a
VM would be acquired to run `--timelimit`.
"""

from __future__ import annotations

import shlex
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from pool.cli.names import GUEST_PATH
from pool.cli.words import TEXT_OR_NOTHING

_DASHES: Final = "--"


class GuestCommand(click.Command):
    """A command whose last argument is `guest_argv`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        separated = _DASHES in args
        at = args.index(_DASHES) if separated else len(args)
        # Without the dashes, the first word that is not an option begins the guest's command; options after it belong
        # to that command.
        ctx.allow_interspersed_args = separated
        rest = super().parse_args(ctx, args[:at])
        argv = next(param for param in self.params if param.name == "argv")
        if ctx.resilient_parsing:  # a shell completes the line
            ctx.params["argv"] = ()
            return rest
        if stray := ctx.params["argv"]:
            raise click.UsageError(_misplaced(ctx, stray, separated=separated), ctx)
        words = args[at + 1 :]
        if not words:
            raise click.MissingParameter(ctx=ctx, param=argv)
        ctx.params["argv"] = argv.type_cast_value(ctx, words)
        return rest


def guest_argv(command: Any) -> Any:
    return click.argument(
        "argv", nargs=-1, type=TEXT_OR_NOTHING, metavar="-- CMD...", shell_complete=_complete_guest_path
    )(command)


def _complete_guest_path(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """In a guest that is leased, of which the line has the lease."""
    return GUEST_PATH.shell_complete(ctx, param, incomplete) if incomplete.startswith("/") else []


def _misplaced(ctx: click.Context, stray: tuple[str, ...], *, separated: bool) -> str:
    if separated:
        return f"{stray[0]!r} is not an option; the guest's command goes after `--`."
    ours = " ".join([ctx.command_path, *_leading(ctx)])
    theirs = "CMD..." if stray[0].startswith("-") else shlex.join(stray)
    return f"The guest's command goes after `--`: `{ours} -- {theirs}`."


def _leading(ctx: click.Context) -> list[str]:
    """The arguments before the guest's command."""
    named = (param for param in ctx.command.params if isinstance(param, click.Argument) and param.name != "argv")
    return [shlex.quote(ctx.params[param.name]) for param in named if param.name]
