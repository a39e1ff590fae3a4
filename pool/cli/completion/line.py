"""A command line as bash hands it to a completion: raw text up to the cursor. Pure."""

from __future__ import annotations

from typing import Final

import attrs
from click.shell_completion import split_arg_string

_QUOTES: Final = "'\""
_SPECIAL: Final = frozenset(" \t\"'\\`$&|;<>()*?[]#~{}!")
"""Characters that bash takes otherwise than as themselves, in a word without quotes."""


@attrs.frozen(kw_only=True)
class Line:
    words: tuple[str, ...]
    """Those before the current one, as the command would get them."""
    current: str
    """The current word, as the command would get it."""
    quote: str
    """The quotation mark that is open, or nothing."""
    raw: str
    """The current word as it was typed."""


def parse_line(text: str) -> Line:
    start, quote, escaped = 0, "", False
    for at, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in _QUOTES:
            quote = character
        elif character.isspace():
            start = at + 1
    raw = text[start:]
    return Line(
        words=tuple(split_arg_string(text[:start])),
        current="".join(split_arg_string(raw)),
        quote=quote,
        raw=raw,
    )


def replacement(value: str, line: Line, *, breaks: str) -> str:
    """What bash is to put in place of what it takes for the current word: only the part behind the last character of
    COMP_WORDBREAKS, or behind the open quotation mark.
    """
    if line.quote:
        behind = line.raw.rindex(line.quote) + 1
        return value[len("".join(split_arg_string(line.raw[:behind] + line.quote))) :]
    last = max((line.raw.rfind(character) for character in breaks if not character.isspace()), default=-1)
    done = "".join(split_arg_string(line.raw[: last + 1]))
    return "".join(f"\\{each}" if each in _SPECIAL else each for each in value[len(done) :])
