"""The command lines that the documentation shows, and what `vmpool` makes of them before it does anything."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
import click

from pool.cli.main import main

CHECKOUT: Final = Path(__file__).parents[1]
PAGES: Final = (
    "README.md",
    "docs/guide.md",
    "docs/templates.md",
    "docs/security.md",
    "docs/performance.md",
    "docs/tasks/README.md",
    "docs/tasks/untrusted-code.md",
    "docs/tasks/ci-job.md",
)
"""Those for users. Kata's annex, which speaks of several programs, has tests of its own."""

_PUNCTUATION: Final = set("();<>|&")
_SYNOPSIS: Final = {"[", "]"}


@attrs.frozen(kw_only=True)
class Documented:
    where: str
    """Page and number of the line."""
    text: str
    words: tuple[str, ...]
    """What stands behind `vmpool`."""
    complete: bool
    """As somebody would type it; otherwise it may lack arguments, or have placeholders in their place."""

    def check(self) -> None:
        """Raises click.UsageError if there is no such command or option. Runs nothing."""
        context, words = _innermost(self.words)
        if self.complete:
            assert context.info_name is not None
            context.command.make_context(context.info_name, list(words), parent=context.parent)
        else:
            ours = words[: words.index("--")] if "--" in words else words
            context.command.make_parser(context).parse_args(list(ours))


def _innermost(words: Sequence[str]) -> tuple[click.Context, Sequence[str]]:
    """The command that is named, and what is left for it."""
    context = click.Context(main, info_name="vmpool")
    while isinstance(context.command, click.Group) and words and not words[0].startswith("-"):
        command = context.command.get_command(context, words[0])
        if command is None:
            raise click.UsageError(f"no such command: {words[0]}", context)
        context, words = click.Context(command, info_name=words[0], parent=context), words[1:]
    return context, words


def blocks(text: str) -> Iterator[dict[int, str]]:
    """The shell's: indented, or fenced as sh or console; their lines by number."""
    block: dict[int, str] = {}
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            fence = line.removeprefix("```").strip() if fence is None else None
        elif fence in ("sh", "console"):
            block[number] = line.removeprefix("$ ")
        elif fence is None and line.startswith("    "):
            block[number] = line.strip()
        elif block and line:
            yield block
            block = {}
    if block:
        yield block


def commands_in(line: str) -> Iterator[tuple[str, ...]]:
    """What a line of shell gives to `vmpool`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.wordchars += ":"  # of LEASE:PATH
    command: list[str] = []
    for token in [*lexer, ";"]:
        if not set(token) <= _PUNCTUATION:
            command.append(token)
            continue
        if command[:1] == ["vmpool"]:
            yield tuple(command[1:])
        command = []


def documented(page: str, text: str) -> Iterator[Documented]:
    for block in blocks(text):
        for number, line in block.items():
            for words in commands_in(line) if "vmpool " in line else ():
                yield Documented(
                    where=f"{page}:{number}",
                    text=line,
                    words=tuple(word for word in words if word not in _SYNOPSIS),
                    complete=not _SYNOPSIS & set(words),
                )
    for span in re.finditer(r"`vmpool\s([^`]+)`", text):
        number = text.count("\n", 0, span.start()) + 1
        yield Documented(
            where=f"{page}:{number}", text=span[0], words=tuple(shlex.split(span[1], comments=True)), complete=False
        )


def all_documented() -> tuple[Documented, ...]:
    return tuple(each for page in PAGES for each in documented(page, (CHECKOUT / page).read_text(encoding="utf-8")))


def options() -> frozenset[str]:
    """Of all commands."""
    return frozenset(_options(click.Context(main, info_name="vmpool")))


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        yield from (*parameter.opts, *parameter.secondary_opts)
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            yield from _options(click.Context(command, info_name=name, parent=context))
