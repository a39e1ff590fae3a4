"""Click's machinery for completion with scripts of our own, which know words with colons, and words that go on."""

from __future__ import annotations

import os
from importlib import resources
from typing import Any, ClassVar, Final

from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

from pool.cli.completion.line import Line, parse_line, replacement

SHELLS: Final = ("bash", "zsh", "fish")

PART: Final = "part"
"""Type of an item that is only a part of a word: no space follows it."""

_SEPARATOR: Final = "\x1f"


def script(shell: str) -> str:
    """Teaches a shell to complete vmpool's command lines."""
    return resources.files("pool.cli.completion").joinpath(f"vmpool.{shell}").read_text(encoding="utf-8")


class _Completion(ShellComplete):
    """Answers with a line for each item: type, value and help, separated by tabs. The shell has split the words."""

    source_template: ClassVar[str] = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        *words, current = os.environ["_VMPOOL_WORDS"].split(_SEPARATOR)
        return words[1:], current

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Click finds what may follow `--option=`; a shell asks for the whole word."""
        items = super().get_completions(args, incomplete)
        option, equals, _ = incomplete.partition("=")
        if equals and option.startswith("--"):
            for item in items:
                item.value = f"{option}={item.value}"
        return items

    def format_completion(self, item: CompletionItem[Any]) -> str:
        words = " ".join((item.help or "").split())
        return f"{item.type}\t{item.value}\t{words}"


class _Zsh(_Completion):
    name = "zsh"


class _Fish(_Completion):
    name = "fish"

    def get_completion_args(self) -> tuple[list[str], str]:
        words, current = super().get_completion_args()
        return words, "".join(split_arg_string(current))  # fish gives it as it was typed


class _Bash(_Completion):
    """Bash has split the words at colons, so the line is split anew."""

    name = "bash"

    _line: Line

    def get_completion_args(self) -> tuple[list[str], str]:
        self._line = parse_line(os.environ["_VMPOOL_LINE"])
        return list(self._line.words[1:]), self._line.current

    def format_completion(self, item: CompletionItem[Any]) -> str:
        if item.type not in ("plain", PART):
            return item.type
        return f"{item.type}\t{replacement(item.value, self._line, breaks=os.environ['_VMPOOL_BREAKS'])}"


def register_shells() -> None:
    for shell in (_Bash, _Zsh, _Fish):
        add_completion_class(shell)
