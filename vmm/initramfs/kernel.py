"""A kernel and its modules, from a directory with extracted packages.

Releases differ in what is a module, in module dependencies and in compression. None of this is hard-coded: the packages
list built-in modules (`modules.builtin`), and each module its dependencies (`.modinfo`). `modules.dep` has both, but is
created at installation, and nothing is installed here.
"""

from __future__ import annotations

import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from vmm.initramfs import elf
from vmm.initramfs.errors import unknown_layout

_DECOMPRESS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "": bytes,
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
}
"""Decompression by the suffix after `.ko`. Python has Zstandard since 3.14 only; Debian does not use it here."""


@attrs.frozen(kw_only=True)
class Module:
    """A loadable module."""

    name: str
    """The kernel's name for it, with `_` where the file name has `-`."""
    data: bytes


@attrs.frozen(kw_only=True)
class Kernel:
    """A kernel with its modules."""

    release: str
    image: Path
    files: Mapping[str, Path]
    """Modules by name."""
    builtin: frozenset[str]
    """Names of modules compiled into the kernel."""

    def load_order(self, wanted: Iterable[str]) -> list[Module]:
        """The modules with all their dependencies, in loading order, without built-in ones.

        Raises ImageError if one is neither a file nor built in, or cannot be read.
        """
        order: dict[str, Module] = {}
        for name in wanted:
            self._append(_canonical(name), order, needed_by=None, on_the_way=frozenset())
        return list(order.values())

    def _append(
        self, name: str, order: dict[str, Module], *, needed_by: str | None, on_the_way: frozenset[str]
    ) -> None:
        if name in order or name in self.builtin or name in on_the_way:
            return
        file = self.files.get(name)
        if file is None:
            reader = "" if needed_by is None else f", which {needed_by} needs"
            raise unknown_layout(f"kernel {self.release} has no module {name}{reader}")
        data = _read(file)
        information = _information(file, data)
        on_the_way |= {name}
        for first in _words(information, "softdep", r"pre: ([^:]*)(?: post:|$)"):
            # As modprobe does: loaded first, if the module exists.
            if first in self.files:
                self._append(first, order, needed_by=name, on_the_way=on_the_way)
        for needed in _words(information, "depends", "(.*)"):
            self._append(needed, order, needed_by=name, on_the_way=on_the_way)
        order[name] = Module(name=name, data=data)


def find(root: Path, release: str) -> Kernel:
    """The kernel of that release among the packages extracted in `root`. Raises ImageError."""
    images = (root / "boot" / f"vmlinuz-{release}", root / "usr/lib/modules" / release / "vmlinuz")
    image = next((path for path in images if path.is_file()), None)
    if image is None:
        raise unknown_layout(f"no package contains {images[0].relative_to(root)}")
    places = (root / "lib/modules" / release, root / "usr/lib/modules" / release)
    found = [place for place in places if (place / "modules.builtin").is_file()]
    if not found:
        raise unknown_layout(f"no package contains {places[0].relative_to(root)}/modules.builtin")
    return Kernel(
        release=release,
        image=image,
        files={_module_name(path): path for path in sorted((found[0] / "kernel").rglob("*.ko*"))},
        builtin=frozenset(_module_name(Path(line)) for line in (found[0] / "modules.builtin").read_text().split()),
    )


def _read(file: Path) -> bytes:
    compression = file.name.partition(".ko")[2]
    decompress = _DECOMPRESS.get(compression)
    if decompress is None:
        known = ", ".join(f".ko{suffix}" for suffix in _DECOMPRESS)
        raise unknown_layout(
            f"the kernel's module {file.name} is compressed as {compression}; only {known} can be read"
        )
    try:
        return decompress(file.read_bytes())
    except (lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise unknown_layout(f"the kernel's module {file.name} cannot be decompressed: {error}") from error


def _information(file: Path, data: bytes) -> list[str]:
    """`key=value` pairs, as modinfo shows them."""
    try:
        section = elf.section(data, ".modinfo")
    except ValueError as error:
        raise unknown_layout(f"the kernel's module {file.name} cannot be read: {error}") from error
    if section is None:
        raise unknown_layout(f"the kernel's module {file.name} has no .modinfo section with its dependencies")
    return [entry.decode(errors="replace") for entry in section.split(b"\0")]


def _words(information: list[str], key: str, pattern: str) -> Iterator[str]:
    for entry in information:
        name, _, value = entry.partition("=")
        if name == key and (found := re.search(pattern, value)):
            yield from (_canonical(word) for word in re.split(r"[ ,]+", found[1]) if word)


def _module_name(file: Path) -> str:
    return _canonical(file.name.partition(".ko")[0])


def _canonical(name: str) -> str:
    return name.replace("-", "_")
