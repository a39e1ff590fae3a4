"""The reference of the SDK: all that a program can import says what it is, in types that the reference can read."""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import pdoc.doc
import pytest

import vmpool
import vmpool.aio
import vmpool.sync

FACES = pytest.mark.parametrize("face", [vmpool, vmpool.aio, vmpool.sync], ids=lambda face: face.__name__)


def classes_of(face: types.ModuleType) -> Iterator[tuple[str, type]]:
    for name in face.__all__:
        value = getattr(face, name)
        if inspect.isclass(value):
            yield name, value


@FACES
def test_all_that_is_exported_says_what_it_is(face: types.ModuleType) -> None:
    silent = [name for name, value in classes_of(face) if not vars(value).get("__doc__")]
    silent += [name for name in face.__all__ if inspect.isfunction(value := getattr(face, name)) and not value.__doc__]
    assert silent == []


@FACES
def test_methods_of_what_is_exported_say_what_they_do(face: types.ModuleType) -> None:
    silent = [
        f"{name}.{method}"
        for name, value in classes_of(face)
        for method, function in vars(value).items()
        if not method.startswith("_") and inspect.isfunction(function) and not function.__doc__
    ]
    assert silent == []


@FACES
def test_the_reference_has_every_name_and_understands_every_annotation(face: types.ModuleType) -> None:
    names = [name for name in face.__all__ if getattr(face, name) is not None]  # pdoc sees only what has been asked for
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        described = {member.name: member for member in pdoc.doc.Module(face).own_members}
        for function in functions(described.values()):
            assert str(function.signature)
    assert sorted(described) == sorted(names)


def functions(members: Iterable[pdoc.doc.Doc[Any]]) -> Iterator[pdoc.doc.Function]:
    for member in members:
        if isinstance(member, pdoc.doc.Class):
            yield from functions(member.own_members)
        elif isinstance(member, pdoc.doc.Function):
            yield member
