"""This package's own imports: of `pool`, `actors` and `vmm` as they were installed with it, whatever has those names.

Python asks the directory of the script first, so that a user's own `pool.py` would be taken for ours. Therefore the SDK
is loaded below this module, as `vmpool._own.pool.client` and so on, and what its modules import from one another is
looked up here too. `sys.modules["pool"]` stays free for its owner.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_NAMES: Final = frozenset({"pool", "actors", "vmm"})

__path__ = [str(Path(__file__).parents[1])]
"""Makes this module a package that contains what lies beside `vmpool`."""


def own(name: str) -> ModuleType:
    """The module of ours with that name, imported if need be."""
    return importlib.import_module(f"{__name__}.{name}")


def _import(
    name: str,
    importer: Mapping[str, object] | None = None,
    local: Mapping[str, object] | None = None,
    members: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """What an import statement in one of our modules calls, with the arguments of `__import__`."""
    top = name.partition(".")[0]
    if level > 0 or top not in _NAMES:
        return builtins.__import__(name, importer, local, members or (), level)
    if not members:  # `import pool.client` binds `pool`
        own(name)
        return own(top)
    return builtins.__import__(f"{__name__}.{name}", importer, local, members, 0)


class _Loader(Loader):
    """Executes a module with that import statement, and is else the loader that Python found."""

    def __init__(self, found: Loader) -> None:
        self._found = found

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._found.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = vars(builtins) | {"__import__": _import}
        self._found.exec_module(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found, name)


class _Finder:
    """Finds what `own` and `_import` ask for."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(f"{__name__}."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder)
