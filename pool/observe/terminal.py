"""Safe display of untrusted text: guests control their console and agent, and terminals obey control characters."""

from __future__ import annotations


def visible(text: str, *, kept: str = "\n\t") -> str:
    r"""The text with all that a terminal would act on, or not show, written out as in Python: ESC becomes \x1b.

    That is control characters, bidirectional overrides, invisible characters, and what is no Unicode; `kept` are left
    as they are. Text without any is returned unchanged.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character in kept or character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
