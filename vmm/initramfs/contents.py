"""The contents of the initramfs, taken from a directory with extracted packages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from vmm.initramfs import cpio, elf
from vmm.initramfs.errors import unknown_layout
from vmm.initramfs.kernel import Module

MODULES = ("virtio_pci", "virtio_console", "virtio_rng")
"""Kernel modules that every guest loads, besides their dependencies."""

VSOCK_MODULES = ("vmw_vsock_virtio_transport",)
"""Further modules for a machine with a vsock device."""

_LEFT_OUT = (
    # Tests, tools, demonstrations, and modules that need a display or a missing library.
    "antigravity|ctypes/test|curses|dbm|distutils|ensurepip|idlelib|lib2to3|pydoc|pydoc_data|sqlite3|ssl|test|this"
    "|tkinter|turtle|turtledemo|unittest/test|venv|webbrowser|wsgiref|xmlrpc|__phello__|__hello__|sitecustomize"
    # Protocols: the guest has no network.
    "|ftplib|imaplib|mailbox|mailcap|nntplib|poplib|smtpd|smtplib|telnetlib|cgi|cgitb"
    # Other systems, old formats.
    "|_(aix|android|apple|ios|osx)_support|_bootsubprocess|_distutils_system_mod|aifc|chunk|imghdr|msilib|nturl2path|ossaudiodev"
    "|sndhdr|sunau|uu|wave|xdrlib"
    # Modules that the interpreter has in C.
    "|_pydatetime|_pydecimal|_pyio"
    # Encodings with large tables.
    "|encodings/(cp|mac_|iso|big5|euc|gb|hz|johab|koi8|kz1048|ptcp|shift|tis|hp_|palmos|bz2|uu|quopri|rot_13|undefined"
    "|oem|mbcs|charmap).*"
)
_EXCLUDED = re.compile(f"({_LEFT_OUT})(\\.py|/.*)?")

_EXCLUDED_EXTENSIONS = re.compile(
    # Tests, and examples.
    "_test.*|_ctypes_test|_xxtest.*|xx.*"
    # Encodings with large tables, and sound.
    "|_codecs_.*|_multibytecodec|audioop|ossaudiodev"
)
"""Separate extension modules that would work but are not wanted. Extensions whose libraries are missing are left out
too: see `packages`."""

_LIBRARY_DIRECTORIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")

_USER = 1000
"""Number of the one unprivileged user, and its group."""

_ETC = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
    f"user:x:{_USER}:{_USER}:user:/home/user:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": f"root:x:0:\ntty:x:5:\nuser:x:{_USER}:\nnogroup:x:65534:\n",
    "etc/shells": "/bin/sh\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/hostname": "vmpool\n",
}


def standard_library(root: Path, python: str) -> list[Path]:
    """The modules to keep, sorted, relative to the library's directory."""
    library = root / "usr/lib" / python
    paths = (path.relative_to(library) for path in library.rglob("*.py"))
    return sorted(path for path in paths if not _EXCLUDED.fullmatch(str(path)))


def entries(
    *, root: Path, modules: Iterable[Module], applets: Iterable[str], init_script: str, agent: Iterable[cpio.Entry]
) -> Iterator[cpio.Entry]:
    """Everything in the initramfs. Raises ImageError when a file is not in the packages.

    `root` is where the packages are extracted, `agent` the entries from `builtin_agent` or `qga`.
    """
    for path in ("dev", "proc", "run", "sys", "tmp", "var/tmp", "usr/local/bin"):
        yield cpio.directory(path, mode=0o1777 if path.endswith("tmp") else 0o755)
    yield cpio.directory("root", mode=0o700)
    yield cpio.directory("home/user", mode=0o700, owner=_USER)
    for path, target in (("bin", "usr/bin"), ("sbin", "usr/bin"), ("usr/sbin", "bin"), ("lib", "usr/lib")):
        yield cpio.link(path, target)
    yield cpio.character_device("dev/console", 5, 1)
    yield cpio.character_device("dev/null", 1, 3, mode=0o666)
    yield cpio.file("init", init_script.encode(), mode=0o755)
    for path, text in _ETC.items():
        yield cpio.file(path, text.encode())
    yield cpio.file("usr/bin/busybox", _read(root / "bin/busybox", root / "usr/bin/busybox"), mode=0o755)
    for applet in applets:
        yield cpio.link(f"usr/bin/{applet}", "busybox")
    yield from agent
    for module in modules:
        yield cpio.file(f"usr/lib/modules/{module.name}.ko", module.data)


def qga(root: Path) -> Iterator[cpio.Entry]:
    """qemu-ga, and perl for reseeding, from Debian's essential packages."""
    programs = {"qemu-ga": _read(root / "usr/sbin/qemu-ga"), "perl": _read(root / "usr/bin/perl")}
    for name, data in programs.items():
        yield cpio.file(f"usr/bin/{name}", data, mode=0o755)
    yield from _shared_libraries(root, programs.values())


def builtin_agent(root: Path, python: str, bytecode: Path) -> Iterator[cpio.Entry]:
    """Python with the agent among its modules. `python` is "python3.X", `bytecode` mirrors `usr/lib/python3.X`."""
    interpreter = _read(root / f"usr/bin/{python}")
    yield cpio.file(f"usr/bin/{python}", interpreter, mode=0o755)
    yield cpio.link("usr/bin/python3", python)
    yield cpio.link("usr/bin/python", python)
    for path in sorted(bytecode.rglob("*.pyc")):
        yield cpio.file(f"usr/lib/{python}/{path.relative_to(bytecode)}", path.read_bytes())
    binaries = [interpreter]
    dynload = f"usr/lib/{python}/lib-dynload"
    yield cpio.directory(dynload)
    for name, data in _extensions(root, root / dynload):
        binaries.append(data)
        yield cpio.file(f"{dynload}/{name}", data)
    yield from _shared_libraries(root, binaries)


def _extensions(root: Path, dynload: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the extension modules to keep."""
    for path in sorted(dynload.glob("*.so")):
        if _EXCLUDED_EXTENSIONS.fullmatch(path.name.partition(".")[0]):
            continue
        data = path.read_bytes()
        if all(any(file.is_file() for file in _library_files(root, name)) for name in elf.needed(data)):
            yield path.name, data


def _shared_libraries(root: Path, binaries: Iterable[bytes]) -> Iterator[cpio.Entry]:
    loader = "ld-linux-x86-64.so.2"
    yield cpio.file(f"usr/lib64/{loader}", _library(root, loader), mode=0o755)
    yield cpio.link("lib64", "usr/lib64")
    for name, data in sorted(_libraries(root, binaries).items()):
        if name != loader:
            yield cpio.file(f"usr/lib/x86_64-linux-gnu/{name}", data)


def _libraries(root: Path, binaries: Iterable[bytes]) -> dict[str, bytes]:
    """Every library that the binaries need, directly or indirectly."""
    found: dict[str, bytes] = {}
    waiting = [name for binary in binaries for name in elf.needed(binary)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _library(root, name)
            waiting += elf.needed(found[name])
    return found


def _library(root: Path, name: str) -> bytes:
    return _read(*_library_files(root, name))


def _library_files(root: Path, name: str) -> list[Path]:
    return [root / directory / name for directory in _LIBRARY_DIRECTORIES]


def _read(*paths: Path) -> bytes:
    for path in paths:
        if path.is_file():
            return path.read_bytes()
    raise unknown_layout(f"no package contains {paths[0].name}")
