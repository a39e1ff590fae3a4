"""Building the image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import trio

from vmm.guest.image import GuestImage, ImageProgress, build_image, load_image
from vmm.guest.image_errors import ImageError

pytestmark = pytest.mark.qemu


@pytest.fixture
def directory(guest_image: GuestImage, tmp_path: Path) -> Path:
    """A directory with the packages of the guest image, and no image."""
    packages = guest_image.kernel.parent / "packages"
    if packages.is_dir():
        shutil.copytree(packages, tmp_path / "packages")
    return tmp_path


async def test_the_same_inputs_make_the_same_bytes(guest_image: GuestImage, directory: Path) -> None:
    again = await build_image(directory, progress=lambda _: None)
    assert (again.initrd_sha256, again.kernel_sha256) == (guest_image.initrd_sha256, guest_image.kernel_sha256)
    assert again.initrd.read_bytes() == guest_image.initrd.read_bytes()
    names = sorted([path.name for path in await trio.Path(directory).iterdir()])
    assert names == ["initrd", "manifest.json", "packages", "vmlinuz"]


async def test_a_second_build_does_nothing(directory: Path) -> None:
    steps: list[ImageProgress] = []
    first = await build_image(directory, progress=steps.append)
    assert list(dict.fromkeys(step.stage for step in steps)) == [
        *("resolve", "download", "extract", "compile", "assemble", "done")
    ]
    assert all(0 <= step.fraction <= 1 for step in steps)
    shutil.rmtree(directory / "packages")
    steps.clear()
    assert await build_image(directory, progress=steps.append) == first
    assert [step.stage for step in steps] == ["resolve", "done"]
    assert not (directory / "packages").exists()


async def test_an_image_of_other_inputs_is_built_anew(directory: Path) -> None:
    built = await build_image(directory, progress=lambda _: None)
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps({**manifest, "inputs_sha256": "of another agent"}))
    (directory / "initrd").write_bytes(b"old")
    assert await build_image(directory, progress=lambda _: None) == built
    assert load_image(directory) == built
    assert built.initrd.stat().st_size > 1_000_000


async def test_a_package_file_that_is_broken_is_named(directory: Path) -> None:
    broken = next((directory / "packages").glob("busybox*.deb"))
    broken.write_bytes(b"not a package")
    with pytest.raises(ImageError) as caught:
        await build_image(directory, progress=lambda _: None)
    assert broken.name in str(caught.value)
    assert not (directory / "manifest.json").exists()
