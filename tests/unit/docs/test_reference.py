"""The reference of the SDK: everything that a program can import is in it, with a docstring and types that are understood."""

from __future__ import annotations

import inspect
import types
import warnings

import pdoc.doc
import pytest

import vmpool
import vmpool.aio
import vmpool.sync

FACES = pytest.mark.parametrize("face", [vmpool, vmpool.aio, vmpool.sync], ids=lambda face: face.__name__)


@FACES
def test_all_that_is_exported_says_what_it_is(face: types.ModuleType) -> None:
    silent = [
        name
        for name in face.__all__
        if (callable(value := getattr(face, name)) or inspect.isclass(value)) and not inspect.getdoc(value)
    ]
    assert silent == []


@FACES
def test_methods_of_what_is_exported_say_what_they_do(face: types.ModuleType) -> None:
    silent = [
        f"{name}.{method}"
        for name in face.__all__
        if inspect.isclass(value := getattr(face, name)) and value.__module__.startswith(face.__name__)
        for method, function in vars(value).items()
        if not method.startswith("_") and inspect.isfunction(function) and not inspect.getdoc(function)
    ]
    assert silent == []


@FACES
def test_the_reference_understands_every_annotation(face: types.ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        described = pdoc.doc.Module(face)
        for member in described.flattened_own_members:
            assert member.docstring is not None
            if isinstance(member, pdoc.doc.Function):
                str(member.signature)
