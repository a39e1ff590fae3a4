"""Building the image."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import attrs
import pytest
import trio

from vmm.initramfs.errors import ImageError
from vmm.initramfs.image import GuestImage, ImageProgress, build_image, load_image

pytestmark = pytest.mark.qemu


def packages_of(image: GuestImage, directory: Path) -> Path:
    """A directory with the packages of an image, and no image."""
    packages = image.kernel.parent / "packages"
    if packages.is_dir():
        shutil.copytree(packages, directory / "packages")
    return directory


@attrs.frozen(kw_only=True)
class Built:
    directory: Path
    image: GuestImage
    steps: tuple[ImageProgress, ...]


@pytest.fixture(scope="module")
def built(guest_image: GuestImage, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A build of the guest image, to be left as it is."""
    steps: list[ImageProgress] = []
    directory = packages_of(guest_image, tmp_path_factory.mktemp("image"))
    image = trio.run(functools.partial(build_image, directory, progress=steps.append))
    return Built(directory=directory, image=image, steps=tuple(steps))


@pytest.fixture
def directory(built: Built, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(built.directory, tmp_path / "image")


def test_the_same_inputs_make_the_same_bytes(guest_image: GuestImage, built: Built) -> None:
    again = built.image
    assert (again.initrd_sha256, again.kernel_sha256) == (guest_image.initrd_sha256, guest_image.kernel_sha256)
    assert again.initrd.read_bytes() == guest_image.initrd.read_bytes()
    names = sorted(path.name for path in built.directory.iterdir())
    assert names == ["initrd", "manifest.json", "packages", "vmlinuz"]


def test_a_build_tells_how_far_it_is(built: Built) -> None:
    assert list(dict.fromkeys(step.stage for step in built.steps)) == [
        *("resolve", "download", "extract", "compile", "assemble", "done")
    ]
    assert all(0 <= step.fraction <= 1 for step in built.steps)


async def test_a_second_build_does_nothing(directory: Path) -> None:
    steps: list[ImageProgress] = []
    first = load_image(directory)
    shutil.rmtree(directory / "packages")
    assert await build_image(directory, progress=steps.append) == first
    assert [step.stage for step in steps] == ["resolve", "done"]
    assert not (directory / "packages").exists()


async def test_an_image_of_other_inputs_is_built_anew(directory: Path) -> None:
    built = load_image(directory)
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps({**manifest, "inputs_sha256": "of another agent"}))
    (directory / "initrd").write_bytes(b"old")
    assert await build_image(directory, progress=lambda _: None) == built
    assert load_image(directory) == built
    assert built.initrd.stat().st_size > 1_000_000


async def test_a_package_file_that_is_broken_is_named(guest_image: GuestImage, tmp_path: Path) -> None:
    directory = packages_of(guest_image, tmp_path)
    broken = next((directory / "packages").glob("busybox*.deb"))
    broken.write_bytes(b"not a package")
    with pytest.raises(ImageError) as caught:
        await build_image(directory, progress=lambda _: None)
    assert broken.name in str(caught.value)
    assert not (directory / "manifest.json").exists()
