"""The parts of the image builder that need no packages."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.initramfs.elf_files import kernel_module, shared_object
from vmm.errors import VmmError
from vmm.guest.agent import wire
from vmm.initramfs import contents, cpio, elf
from vmm.initramfs.errors import ImageError
from vmm.initramfs.image import build_image, load_image


def parse(archive: bytes) -> list[tuple[str, int, bytes]]:
    """Path, mode and content of what is in a newc archive."""
    entries: list[tuple[str, int, bytes]] = []
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, modified, size, name_size = fields[1], fields[5], fields[6], fields[11]
        assert (fields[2], fields[3], modified) == (0, 0, 0), "owned by root, made in 1970"
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        data_at = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return entries
        entries.append((name, mode, archive[data_at : data_at + size]))
        at = (data_at + size + 3) // 4 * 4


def test_an_archive_is_sorted_and_has_every_parent() -> None:
    archive = cpio.archive(
        [cpio.link("z", "a/b"), cpio.file("a/b/c", b"data", mode=0o600), cpio.directory("a", mode=0o700)]
    )
    assert parse(archive) == [
        ("a", stat.S_IFDIR | 0o700, b""),
        ("a/b", stat.S_IFDIR | 0o755, b""),
        ("a/b/c", stat.S_IFREG | 0o600, b"data"),
        ("z", stat.S_IFLNK | 0o777, b"a/b"),
    ]


@given(files=st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.binary(max_size=40)))
def test_an_archive_depends_on_its_entries_only(files: dict[str, bytes]) -> None:
    entries = [cpio.file(path, data) for path, data in files.items()]
    assert cpio.archive(entries) == cpio.archive(reversed(entries))
    assert {path: data for path, _, data in parse(cpio.archive(entries))} == files


def test_the_interpreter_needs_the_c_library() -> None:
    assert "libc.so.6" in elf.needed(Path(os.path.realpath(sys.executable)).read_bytes())


@given(data=st.binary(max_size=300), keep=st.integers(0, 5000))
def test_what_is_no_elf_file_is_a_value_error(data: bytes, keep: int) -> None:
    for candidate in (data, b"\x7fELF\x02\x01" + data):
        for read in (elf.needed, lambda data: elf.section(data, ".modinfo")):
            with contextlib.suppress(ValueError):
                read(candidate)


@given(keep=st.integers(0, 600))
def test_a_module_that_is_cut_short_is_a_value_error(keep: int) -> None:
    whole = kernel_module("depends=virtio")
    assert elf.section(whole, ".modinfo") == b"depends=virtio\0"
    assert elf.section(whole, ".text") is None
    if keep < len(whole):
        with pytest.raises(ValueError, match="ELF file"):
            elf.section(whole[:keep], ".modinfo")


@pytest.mark.parametrize("module", ["json/decoder.py", "re/_parser.py", "unittest/case.py", "encodings/utf_8.py"])
def test_common_modules_are_kept(tmp_path: Path, module: str) -> None:
    library = tmp_path / "usr/lib/python3.x"
    left_out = ("test/support.py", "tkinter/__init__.py", "encodings/cp1252.py", "turtle.py", "_ios_support.py")
    for path in (module, *left_out):
        (library / path).parent.mkdir(parents=True, exist_ok=True)
        (library / path).touch()
    assert contents.standard_library(tmp_path, "python3.x") == [Path(module)]


def test_extensions_are_kept_if_their_libraries_are_there(tmp_path: Path) -> None:
    """Which there are differs with Python's version. What is too large or for tests only is left out by name."""
    dynload = tmp_path / "usr/lib/python3.x/lib-dynload"
    dynload.mkdir(parents=True)
    (tmp_path / "usr/lib/x86_64-linux-gnu").mkdir()
    (tmp_path / "usr/bin").mkdir()
    for library in ("ld-linux-x86-64.so.2", "libc.so.6", "libffi.so.8"):
        (tmp_path / "usr/lib/x86_64-linux-gnu" / library).write_bytes(shared_object(()))
    (tmp_path / "usr/bin/python3.x").write_bytes(shared_object(["libc.so.6"]))
    for name, needed in {
        "_ctypes": ["libffi.so.8", "libc.so.6"],
        "_json": ["libc.so.6"],
        "_new": [],
        "_ssl": ["libssl.so.3", "libc.so.6"],
        "_testcapi": ["libc.so.6"],
        "_codecs_jp": ["libc.so.6"],
    }.items():
        (dynload / f"{name}.cpython-3x-x86_64-linux-gnu.so").write_bytes(shared_object(needed))
    entries = contents.builtin_agent(tmp_path, "python3.x", tmp_path / "bytecode")
    names = {Path(entry.path).name.partition(".")[0] for entry in entries if "lib-dynload/" in entry.path}
    assert names == {"_ctypes", "_json", "_new"}


def test_no_image_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="build it with") as caught:
        load_image(tmp_path)
    assert isinstance(caught.value, VmmError)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"kernel_release": 1, "extra": 2}'])
def test_an_unusable_manifest_is_no_image(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(ImageError, match="manifest"):
        load_image(tmp_path)


async def test_without_debian_s_tools_the_error_says_where_to_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match=r"the program apt-cache is not installed; .* build it on Debian"):
        await build_image(tmp_path / "image", progress=lambda _: None)
    assert not (tmp_path / "image").exists()


async def test_a_package_that_apt_does_not_know_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "apt-cache"
    known = "linux-image-1.0-cloud-amd64 python3.99-minimal libc6"
    fake.write_text(
        "#!/bin/sh\n"
        f"[ $1 = depends ] && for name in {known}; do echo '  Depends: '$name; done\n"
        "[ $1 = policy ] && printf 'libc6:\\n  Installed: 1\\n  Candidate: 1\\n'\nexit 0\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ImageError, match=r"apt knows no package busybox-static, .*; run `apt-get update`"):
        await build_image(tmp_path / "image", progress=lambda _: None)


def test_the_agent_imports_no_heavy_module() -> None:
    # Each would cost more boot time than the agent itself.
    heavy = {"enum", "typing", "collections", "json", "re", "subprocess", "signal", "asyncio", "selectors", "threading"}
    program = "import sys; sys.path.insert(0, sys.argv[1]); import agent.main; print(' '.join(sys.modules))"
    guest = Path(wire.__file__).parents[1]
    with os.popen(f'{sys.executable} -I -S -c "{program}" {guest}') as output:
        assert not heavy & set(output.read().split())
