"""Strict conversion of TOML tables to attrs records; faults are reported with the key's path."""

from __future__ import annotations

import enum
import re
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from pool.producers.registry import PRODUCERS
from pool.settings.access import structure_account
from vmm.accounts import Account
from vmm.words.confinement import Layer, UidRange, structure_range
from vmm.words.kinds import ProducerKind

_T = TypeVar("_T")
_P = TypeVar("_P")


def problems_of(error: cattrs.BaseValidationError) -> tuple[str, ...]:
    """One sentence per fault, each with the key's path."""
    return tuple(_with_path(fault) for fault in cattrs.transform_error(error, format_exception=_say))


def _strict(expected: type[Any], *also: type[Any]) -> Any:
    """A cattrs hook that converts nothing: TOML has types, and "2" is not 2."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) not in (expected, *also):
            raise TypeError(f"must be {_TYPE_NAMES[expected]}, not {value!r}")
        return expected(value)

    return structure


_TYPE_NAMES: Final = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", Path: "a path"}


def _say(error: BaseException, kind: type[Any] | None) -> str:
    match error:
        case cattrs.ForbiddenExtraKeysError():
            return f"unknown key: {', '.join(sorted(error.extra_fields))}"
        case KeyError():
            return "required key is missing"
        case TypeError() if str(error).startswith("must be"):
            return str(error)
        case AttributeError():
            return "must be a table"  # cattrs called `items` of another type
        case TypeError() if any(attrs.has(each) for each in (kind, *typing.get_args(kind))):
            return "must be a table"
        case TypeError():
            return "must be a list"  # cattrs iterated over another type
        case ValueError() if isinstance(kind, enum.EnumMeta):
            return f"must be one of {', '.join(repr(member.value) for member in kind)}"
        case ValueError():
            return str(error.args[0])  # attrs adds the attribute and the validator to `args`
        case _:
            return f"wrong value: {error}"


def _with_path(fault: str) -> str:
    """`'size' must be ... @ $.profiles['small']` as `profiles.small.size: must be ...`."""
    what, _, where = fault.rpartition(" @ $")
    path = re.sub(r"\['([^']*)'\]", r".\1", where).lstrip(".")
    named = re.match(r"'(\w+)' (.*)", what, re.DOTALL)
    if named:
        path, what = f"{path}.{named[1]}".lstrip("."), named[2]
    return f"{path}: {what}" if path else what


def _path(value: Any, _: Any) -> Path:
    text = _strict(str)(value, str)
    if not text or "\0" in text:
        raise TypeError("must be a path, not empty and without NUL")
    return Path(text)


def _accounts(value: Any, kind: Any) -> tuple[Account, ...]:
    if not isinstance(value, list):
        raise TypeError("must be a list of names and numbers")
    return tuple(structure_account(each, kind) for each in value)


def _layers(value: Any, _: Any) -> tuple[Layer, ...]:
    names = [layer.value for layer in Layer]
    if not isinstance(value, list) or not all(each in names for each in value):
        raise TypeError(f"must be a list of layers; use any of {', '.join(names)}")
    return tuple(map(Layer, value))


@attrs.frozen(kw_only=True)
class _Chosen:
    producer: ProducerKind = ProducerKind.DIRECT


def _profiles(converter: cattrs.Converter, profile: type[_P]) -> Callable[[Any, Any], _P]:
    """A profile's table has its own keys and those of all kinds of producers; only those of the chosen kind count."""
    structure_own = make_dict_structure_fn(
        profile, converter, _cattrs_forbid_extra_keys=True, producer=override(omit=True)
    )

    def structure(table: Any, kind: Any) -> _P:
        if not isinstance(table, dict):
            return structure_own(table, kind)
        own = dict(table)
        errors: list[Exception] = []

        def part(of: type[_T], keys: Collection[str]) -> _T | None:
            try:
                return converter.structure({key: own.pop(key) for key in keys if key in own}, of)
            except cattrs.ClassValidationError as error:
                errors.extend(error.exceptions)
                return None

        chosen = part(_Chosen, ("producer",))
        producers = {each: part(settings, _keys_of(settings)) for each, settings in PRODUCERS.items()}
        made: Any = None
        try:
            made = structure_own(own, kind)
        except cattrs.ClassValidationError as error:
            errors.extend(error.exceptions)
        producer = None if chosen is None else producers[chosen.producer]
        if errors or made is None or producer is None:
            raise cattrs.ClassValidationError("while structuring a profile", errors, profile)
        whole: _P = attrs.evolve(made, producer=producer)
        return whole

    return structure


def _keys_of(settings: Any) -> Collection[str]:
    return attrs.fields_dict(settings).keys()


def make_converter(*, profile: type[Any]) -> cattrs.Converter:
    """`profile` is the record of a `[profiles.NAME]` table; its field `producer` gets the chosen kind's settings."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (int, str, bool):
        converter.register_structure_hook(kind, _strict(kind))
    converter.register_structure_hook(float, _strict(float, int))
    converter.register_structure_hook(Path, _path)
    converter.register_structure_hook_func(lambda kind: kind == tuple[Layer, ...], _layers)
    converter.register_structure_hook(UidRange, structure_range)
    converter.register_structure_hook(UidRange | None, structure_range)
    converter.register_structure_hook(Account, structure_account)
    converter.register_structure_hook(Account | None, structure_account)
    converter.register_structure_hook_func(lambda kind: kind == tuple[Account, ...], _accounts)
    converter.register_structure_hook(profile, _profiles(converter, profile))
    return converter
