"""What is taken from the packages of a kernel: laid out as Debian 12, 13 and testing do it."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.initramfs.elf_files import kernel_module
from vmm.initramfs import kernel
from vmm.initramfs.errors import ImageError

RELEASE = "6.0-cloud"


class Tree:
    """A directory with extracted packages."""

    def __init__(self, root: Path, *, usr: str = "usr/") -> None:
        self.root = root
        self.directory = root / f"{usr}lib/modules" / RELEASE
        self.directory.mkdir(parents=True)
        (self.directory / "modules.builtin").write_text("")
        (root / "boot").mkdir()
        (root / f"boot/vmlinuz-{RELEASE}").write_bytes(b"kernel")

    def add(self, file: str, *information: str, pack: Callable[[bytes], bytes] = bytes) -> bytes:
        """A module; returns it as the kernel loads it."""
        path = self.directory / "kernel" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        data = kernel_module(*information)
        path.write_bytes(pack(data))
        return data

    def build_in(self, *files: str) -> None:
        (self.directory / "modules.builtin").write_text("".join(f"kernel/{file}\n" for file in files))

    def names(self, *wanted: str) -> list[str]:
        return [module.name for module in kernel.find(self.root, RELEASE).load_order(wanted)]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_each_module_comes_after_what_it_needs_and_once(tree: Tree) -> None:
    tree.add("drivers/virtio/virtio_ring.ko", "depends=")
    tree.add("drivers/virtio/virtio.ko", "depends=virtio_ring")
    tree.add("drivers/virtio/virtio_pci.ko", "name=virtio_pci", "depends=virtio_ring,virtio", "vermagic=6.0 depends=no")
    tree.add("drivers/char/virtio_console.ko", "depends=virtio,virtio_ring")
    assert tree.names("virtio_pci", "virtio_console") == ["virtio_ring", "virtio", "virtio_pci", "virtio_console"]
    assert tree.names("virtio_console", "virtio_pci") == ["virtio_ring", "virtio", "virtio_console", "virtio_pci"]


def test_what_is_built_in_is_not_loaded_whether_wanted_or_needed(tree: Tree) -> None:
    tree.build_in("drivers/virtio/virtio.ko", "drivers/char/hw_random/rng-core.ko")
    tree.add("drivers/char/hw_random/virtio-rng.ko", "depends=rng-core")
    assert tree.names("virtio", "virtio_rng") == ["virtio_rng"]


def test_a_name_may_be_spelt_as_its_file_is(tree: Tree) -> None:
    data = tree.add("drivers/char/hw_random/virtio-rng.ko", "depends=")
    for name in ("virtio-rng", "virtio_rng"):
        [module] = kernel.find(tree.root, RELEASE).load_order([name])
        assert (module.name, module.data) == ("virtio_rng", data)


def test_a_soft_dependency_is_loaded_before_if_there_is_one(tree: Tree) -> None:
    """Nobody is in the guest whom the kernel could ask for it later."""
    tree.add("lib/libcrc32c.ko", "softdep=pre: crc32c-intel missing post: late", "depends=")
    tree.add("arch/crc32c-intel.ko", "depends=")
    tree.add("late.ko", "depends=")
    assert tree.names("libcrc32c") == ["crc32c_intel", "libcrc32c"]


def test_modules_that_need_each_other_are_no_endless_search(tree: Tree) -> None:
    tree.add("a.ko", "softdep=pre: b", "depends=")
    tree.add("b.ko", "softdep=pre: a", "depends=")
    assert tree.names("a") == ["b", "a"]


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".xz", lzma.compress), (".gz", gzip.compress)])
def test_the_kernel_gets_modules_as_they_were_before_they_were_compressed(
    tree: Tree, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    data = tree.add(f"net/vsock.ko{suffix}", "depends=", pack=pack)
    [module] = kernel.find(tree.root, RELEASE).load_order(["vsock"])
    assert module.data == data


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("m.ko.zst", b"", r"m\.ko\.zst is compressed as \.zst; only \.ko, \.ko\.xz, \.ko\.gz can be read"),
        ("m.ko.xz", b"no xz", r"m\.ko\.xz cannot be decompressed"),
        ("m.ko.xz", lzma.compress(kernel_module())[:-9], r"m\.ko\.xz cannot be decompressed"),
        ("m.ko.gz", b"no gzip", r"m\.ko\.gz cannot be decompressed"),
        ("m.ko.gz", gzip.compress(kernel_module(), mtime=0)[:-9], r"m\.ko\.gz cannot be decompressed"),
        ("m.ko", b"no ELF", r"m\.ko cannot be read: not a 64-bit"),
        ("m.ko", kernel_module("depends=")[:-1], r"m\.ko cannot be read: the ELF file is truncated"),
    ],
)
def test_a_module_that_cannot_be_read_is_named(tree: Tree, file: str, content: bytes, complaint: str) -> None:
    tree.add("m.ko")
    (tree.directory / "kernel/m.ko").unlink()
    (tree.directory / "kernel" / file).write_bytes(content)
    with pytest.raises(ImageError, match=complaint):
        tree.names("m")


def test_what_the_kernel_does_not_have_is_named_with_what_needs_it(tree: Tree) -> None:
    tree.add("a.ko", "depends=b")
    with pytest.raises(ImageError, match=r"kernel 6\.0-cloud has no module b, which a needs"):
        tree.names("a")
    with pytest.raises(ImageError, match=r"kernel 6\.0-cloud has no module c;"):
        tree.names("c")


@pytest.mark.parametrize("usr", ["", "usr/"])
def test_the_kernel_is_found_where_debian_has_it(tmp_path: Path, usr: str) -> None:
    tree = Tree(tmp_path, usr=usr)
    assert kernel.find(tmp_path, RELEASE).image.read_bytes() == b"kernel"
    (tmp_path / f"boot/vmlinuz-{RELEASE}").unlink()
    with pytest.raises(ImageError, match=rf"no package contains boot/vmlinuz-{RELEASE}"):
        kernel.find(tmp_path, RELEASE)
    # From Debian 14 on it lies beside its modules.
    beside = tmp_path / "usr/lib/modules" / RELEASE / "vmlinuz"
    beside.parent.mkdir(parents=True, exist_ok=True)
    beside.write_bytes(b"kernel beside")
    assert kernel.find(tmp_path, RELEASE).image == beside
    (tree.directory / "modules.builtin").unlink()
    with pytest.raises(ImageError, match=r"no package contains .*modules\.builtin"):
        kernel.find(tmp_path, RELEASE)
