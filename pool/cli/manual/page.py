"""What a manual page has, from click's tree. Pure, but for the import of the commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Final

import attrs
import click

from pool.cli.catalogue import COMMANDS, SECTIONS

_VERBATIM: Final = "\b"
"""Click's mark of a paragraph whose lines stay as they are."""


@attrs.frozen
class Paragraph:
    """Text with `code` between backticks."""

    text: str


@attrs.frozen
class Lines:
    """Lines that are not filled."""

    lines: tuple[str, ...]


@attrs.frozen
class Terms:
    """Words and what they mean."""

    items: tuple[tuple[str, str], ...]


@attrs.frozen
class Section:
    title: str
    blocks: tuple[Paragraph | Lines | Terms, ...]


@attrs.frozen(kw_only=True)
class Page:
    name: str
    """`vmpool`, or `vmpool-exec`."""
    summary: str
    """As in "vmpool-exec - run a command in a leased VM"."""
    sections: tuple[Section, ...]


_ENVIRONMENT: Final = Section(
    "ENVIRONMENT",
    (
        Terms(
            (
                ("VMPOOL_SOCKET", "The service's socket, if --socket does not name it."),
                ("XDG_RUNTIME_DIR", "For users other than root, the socket is below it, in vmpool/vmpool.sock."),
                ("VMPOOL_IMAGE_DIR", "Where the guest image is built and looked for."),
            )
        ),
    ),
)


def pages(group: click.Group) -> Iterator[Page]:
    """One for the command as a whole, and one for each of its commands, and of theirs."""
    context = click.Context(group, info_name="vmpool")
    yield _overview(context)
    for name in group.list_commands(context):
        yield from _pages_below(_below(context, name))


def find(group: click.Group, words: tuple[str, ...]) -> Page:
    """The page of `vmpool WORDS`. Raises UsageError if there is no such command."""
    context = click.Context(group, info_name="vmpool")
    if not words:
        return _overview(context)
    for word in words:
        above = context.command
        if not isinstance(above, click.Group) or word not in above.list_commands(context):
            raise click.UsageError(f"There is no command `vmpool {' '.join(words)}`; `vmpool --help` lists them.")
        context = _below(context, word)
    return _page(context)


def _below(context: click.Context, name: str) -> click.Context:
    group = context.command
    assert isinstance(group, click.Group)
    command = group.get_command(context, name)
    assert command is not None
    return click.Context(command, info_name=name, parent=context)


def _pages_below(context: click.Context) -> Iterator[Page]:
    yield _page(context)
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            yield from _pages_below(_below(context, name))


def _overview(context: click.Context) -> Page:
    listed = (
        Section(title.upper(), (Terms(tuple((f"vmpool {name}", entry.summary) for name, entry in section.items())),))
        for title, section in SECTIONS.items()
    )
    also = "`vmpool man COMMAND` shows the page of a command; each is a page of its own, such as `vmpool-run`(1)."
    return Page(
        name="vmpool",
        summary="keeps QEMU virtual machines warm and hands one out in milliseconds",
        sections=(*_usual(context), *listed, _ENVIRONMENT, Section("SEE ALSO", (Paragraph(also),))),
    )


def _page(context: click.Context) -> Page:
    command = context.command
    sections = list(_usual(context))
    if isinstance(command, click.Group):
        items = tuple(
            (f"{context.command_path} {name}", _summary(_below(context, name)))
            for name in command.list_commands(context)
        )
        sections.append(Section("COMMANDS", (Terms(items),)))
    sections.append(Section("SEE ALSO", (Paragraph("`vmpool`(1)"),)))
    summary = _summary(context).rstrip(".")
    return Page(
        name=context.command_path.replace(" ", "-"),
        summary=summary[:1].lower() + summary[1:],
        sections=tuple(sections),
    )


def _summary(context: click.Context) -> str:
    listed = COMMANDS.get(context.command_path.removeprefix("vmpool "))
    return listed.summary if listed else context.command.get_short_help_str(limit=200)


def _usual(context: click.Context) -> Iterator[Section]:
    command = context.command
    synopsis = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    yield Section("SYNOPSIS", (Paragraph(f"`{synopsis}`"),))
    yield Section("DESCRIPTION", tuple(_blocks(command.help or "")))
    records = (param.get_help_record(context) for param in command.get_params(context))
    if described := tuple(record for record in records if record and record[1]):
        yield Section("OPTIONS", (Terms(described),))


def _blocks(text: str) -> Iterator[Paragraph | Lines]:
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if paragraph.startswith(_VERBATIM):
            yield Lines(tuple(paragraph.removeprefix(_VERBATIM).strip("\n").splitlines()))
        else:
            yield Paragraph(" ".join(paragraph.split()))
