"""A manual page in the macros of man(7)."""

from __future__ import annotations

import re

from pool.cli.manual.page import Lines, Page, Paragraph, Section, Terms


def roff(page: Page, *, version: str) -> str:
    """For man(1). Without a date, so that the same version always gives the same page."""
    lines = [
        f'.TH "{escaped(page.name.upper())}" "1" "" "vmpool {escaped(version)}" "vmpool manual"',
        ".SH NAME",
        f"{escaped(page.name)} \\- {_text(page.summary)}",
    ]
    for section in page.sections:
        lines += _section(section)
    return "\n".join(lines) + "\n"


def _section(section: Section) -> list[str]:
    lines = [f".SH {_argument(section.title)}"]
    for at, block in enumerate(section.blocks):
        match block:
            case Paragraph(text=text):
                lines += [*([".PP"] if at else []), _line(_text(text))]
            case Lines(lines=verbatim):
                lines += [".PP", ".RS 4", ".nf", *(_line(escaped(each)) for each in verbatim), ".fi", ".RE"]
            case Terms(items=items):
                for term, meaning in items:
                    lines += [".TP", _line(f"\\fB{escaped(term)}\\fR"), _line(_text(meaning)) or "\\&"]
    return lines


def escaped(text: str) -> str:
    r"""Text that troff shows as it is, if it does not begin a line: hyphens are ASCII's, which can be searched for and
    copied, and no character is taken for a typographic one.
    """
    special = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}
    return "".join(special.get(character, character) for character in text)


def _text(text: str) -> str:
    """What is between backticks is bold."""
    parts = re.split(r"`([^`]+)`", text)
    return "".join(f"\\fB{escaped(part)}\\fR" if at % 2 else escaped(part) for at, part in enumerate(parts))


def _line(text: str) -> str:
    r"""A line that begins with a control character would be a request: \& in front of it is nothing, but is there."""
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _argument(text: str) -> str:
    return f'"{escaped(text)}"'
