"""A manual page as plain text, for where there is no man(1)."""

from __future__ import annotations

import textwrap
from typing import Final

from pool.cli.manual.page import Lines, Page, Paragraph, Terms

_INDENT: Final = " " * 7
_DEEPER: Final = " " * 14


def plain(page: Page, *, width: int) -> str:
    """`width` in columns."""
    lines = ["NAME", *_filled(f"{page.name} - {page.summary}", width, _INDENT), ""]
    for section in page.sections:
        lines.append(section.title)
        for block in section.blocks:
            match block:
                case Paragraph(text=text):
                    lines += [*_filled(text.replace("`", ""), width, _INDENT), ""]
                case Lines(lines=verbatim):
                    lines += [*(f"{_INDENT}    {line}".rstrip() for line in verbatim), ""]
                case Terms(items=items):
                    for term, meaning in items:
                        lines += [f"{_INDENT}{term}", *_filled(meaning.replace("`", ""), width, _DEEPER), ""]
    return "\n".join(lines).rstrip() + "\n"


def _filled(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        width=max(width, len(indent) + 20),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
