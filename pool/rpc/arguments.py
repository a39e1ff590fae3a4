"""Checks that Linux can start a program with given arguments, variables and paths, before a guest is involved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pool.rpc.errors import InvalidRequestError

MAX_STRING_BYTES: Final = 128 * 1024 - 1
"""Of an argument, or of a variable with its name: Linux's MAX_ARG_STRLEN less the NUL."""

MAX_PROGRAM_BYTES: Final = 2 * 1024 * 1024 - 16 * 1024
"""Of all arguments and variables of a program: a quarter of its stack, 8 MiB by default, less an allowance for the
default environment and the program's path, which the guest adds. Variables set at hand-out are known only to the guest.
"""

_OVERHEAD: Final = 1 + 8
"""Of each string: a NUL and a pointer."""

MAX_PATH_BYTES: Final = 4095
"""PATH_MAX without the NUL."""

_SHOWN: Final = 64


def check_argv(field: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raises InvalidRequestError unless a program can be started with `argv` and `environment` of `field`."""
    if not argv:
        raise InvalidRequestError(
            field=f"{field}.argv", reason="is empty; name a program and its arguments, or set shell"
        )
    if not argv[0]:
        raise InvalidRequestError(field=f"{field}.argv[0]", reason="is empty; name a program")
    size = sum(_check_word(f"{field}.argv[{index}]", word) for index, word in enumerate(argv))
    _check_program(field, "argv", size, environment)


def check_shell(field: str, shell: str, environment: Mapping[str, str]) -> None:
    """Raises InvalidRequestError unless a shell can be started with `shell` and `environment` of `field`."""
    _check_program(field, "shell", _check_word(f"{field}.shell", shell), environment)


def _check_program(field: str, words: str, size: int, environment: Mapping[str, str]) -> None:
    _check_total(f"{field}.{words}", size)
    variables = _check_variables(f"{field}.environment", environment)
    _check_total(f"{field}.{words} and {field}.environment", size + variables)


def _check_word(field: str, word: str) -> int:
    """Returns its size."""
    check_no_nul(field, word)
    return _check_string(field, word)


def check_environment(field: str, environment: Mapping[str, str]) -> None:
    """Raises InvalidRequestError unless a program can be given all of it."""
    _check_total(field, _check_variables(field, environment))


def check_path(field: str, path: str) -> None:
    check_no_nul(field, path)
    size = len(path.encode())
    if size > MAX_PATH_BYTES:
        raise InvalidRequestError(
            field=field, reason=f"has {size} bytes; Linux's maximum for a path is {MAX_PATH_BYTES}"
        )


def check_no_nul(field: str, text: str) -> None:
    if "\0" in text:
        raise InvalidRequestError(field=field, reason="has a NUL character; remove it")


def _check_variables(field: str, environment: Mapping[str, str]) -> int:
    """Returns their size."""
    size = 0
    for name, value in environment.items():
        shown = f"{name[:_SHOWN]!r}"
        if not name or "=" in name or "\0" in name:
            raise InvalidRequestError(field=field, reason=f"{shown} is not a name; use one without '=' and NUL")
        check_no_nul(f"{field}[{shown}]", value)
        size += _check_string(f"{field}[{shown}]", f"{name}={value}")
    return size


def _check_string(field: str, text: str) -> int:
    """Returns its size."""
    size = len(text.encode())
    if size > MAX_STRING_BYTES:
        raise InvalidRequestError(
            field=field,
            reason=f"has {size} bytes; the maximum for one string is {MAX_STRING_BYTES}; use a file",
        )
    return size + _OVERHEAD


def _check_total(field: str, size: int) -> None:
    if size > MAX_PROGRAM_BYTES:
        raise InvalidRequestError(
            field=field,
            reason=f"takes {size} bytes; the maximum in all is {MAX_PROGRAM_BYTES}; use a file",
        )
