"""From packages without a version in their names to those that have one, as apt tells of Debian 12, 13 and testing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from vmm.initramfs.errors import ImageError
from vmm.initramfs.packages import kernel_packages, packages_of
from vmm.words.machines import AgentKind

_LEFT_OUT = "libdb5.3 libncursesw6 libreadline8 libsqlite3-0 libtinfo6 libuuid1"


def _python(version: str, *, libraries: str) -> dict[str, str]:
    return {
        "python3-minimal": f"python{version}-minimal dpkg",
        "libpython3-stdlib": f"libpython{version}-stdlib",
        f"python{version}-minimal": f"libc6 libpython{version}-minimal libexpat1 zlib1g",
        f"libpython{version}-minimal": "libc6 libssl3",
        f"libpython{version}-stdlib": f"libpython{version}-minimal media-types netbase {_LEFT_OUT} {libraries}",
    }


_QGA = {
    "qemu-guest-agent": "libc6 libglib2.0-0 init-system-helpers",
    "libglib2.0-0": "libc6 libpcre2-8-0 zlib1g",
    "perl-base": "dpkg libc6 libcrypt1",
    "libc6": "libgcc-s1 libcrypt1",
    "libgcc-s1": "gcc-12-base libc6",
}

BOOKWORM = {
    "linux-image-cloud-amd64": "linux-image-6.1.0-57-cloud-amd64",
    "linux-image-6.1.0-57-cloud-amd64": "kmod linux-base initramfs-tools",
    **_python("3.11", libraries="libbz2-1.0 libc6 libffi8 liblzma5 libcrypt1 libnsl2 libtirpc3"),
    **_QGA,
}
TRIXIE = {
    "linux-image-cloud-amd64": "linux-image-6.12.117+deb13-cloud-amd64",
    "linux-image-6.12.117+deb13-cloud-amd64": "linux-base kmod initramfs-tools",
    **_python("3.13", libraries="libbz2-1.0 libc6 libffi8 liblzma5 tzdata"),
    **_QGA,
}
TESTING = {
    "linux-image-cloud-amd64": "linux-base-cloud-amd64 linux-image-7.2.12+deb14-cloud-amd64",
    "linux-image-7.2.12+deb14-cloud-amd64": "dracut linux-base linux-base-7.2.12+deb14-cloud-amd64 "
    "linux-binary-7.2.12+deb14-cloud-amd64 linux-modules-7.2.12+deb14-cloud-amd64",
    "linux-modules-7.2.12+deb14-cloud-amd64": "kmod linux-base-7.2.12+deb14-cloud-amd64",
    **_python("3.14", libraries="libbz2-1.0 libc6 libffi8 liblzma5 libzstd1 tzdata"),
    **_QGA,
}

Apt = Callable[[Mapping[str, str]], None]


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    """Makes an apt-cache that knows what depends on what, and version 1 of all."""

    def know(depends: Mapping[str, str]) -> None:
        directory = tmp_path / "depends"
        directory.mkdir()
        for name, others in depends.items():
            (directory / name).write_text("".join(f"  Depends: {other}\n" for other in others.split()))
        script = tmp_path / "apt-cache"
        script.write_text(
            "#!/bin/sh\nverb=$1; shift 2\n"
            "for name; do case $verb in\n"
            f'depends) [ ! -f "{directory}/$name" ] || cat "{directory}/$name" ;;\n'
            "policy) printf '%s:\\n  Installed: (none)\\n  Candidate: 1\\n' \"$name\" ;;\n"
            "esac; done\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return know


_LIBRARIES = {"libbz2-1.0", "libc6", "libexpat1", "libffi8", "liblzma5", "zlib1g"}


@pytest.mark.parametrize(
    ("debian", "release", "expected"),
    [
        (
            BOOKWORM,
            "6.1.0-57-cloud-amd64",
            {
                "linux-image-6.1.0-57-cloud-amd64",
                *("libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal"),
            },
        ),
        (
            TRIXIE,
            "6.12.117+deb13-cloud-amd64",
            {
                "linux-image-6.12.117+deb13-cloud-amd64",
                *("libpython3.13-minimal", "libpython3.13-stdlib", "python3.13-minimal"),
            },
        ),
        (
            TESTING,
            "7.2.12+deb14-cloud-amd64",
            {
                *(f"linux-{part}-7.2.12+deb14-cloud-amd64" for part in ("base", "binary", "image", "modules")),
                *("libpython3.14-minimal", "libpython3.14-stdlib", "python3.14-minimal", "libzstd1"),
            },
        ),
    ],
    ids=["bookworm", "trixie", "testing"],
)
async def test_the_default_guest_is_made_of(
    apt: Apt, debian: Mapping[str, str], release: str, expected: set[str]
) -> None:
    apt(debian)
    found, packages = await packages_of(AgentKind.BUILTIN)
    assert found == release
    assert [package.name for package in packages] == sorted({*expected, *_LIBRARIES, "busybox-static"})


@pytest.mark.parametrize("debian", [BOOKWORM, TRIXIE, TESTING], ids=["bookworm", "trixie", "testing"])
async def test_a_guest_with_qga_has_the_libraries_of_its_libraries(apt: Apt, debian: Mapping[str, str]) -> None:
    apt(debian)
    release, packages = await packages_of(AgentKind.QGA)
    names = {package.name for package in packages}
    assert {name for name in names if release not in name} == {
        *("busybox-static", "qemu-guest-agent", "perl-base"),
        *("libc6", "libcrypt1", "libgcc-s1", "libglib2.0-0", "libpcre2-8-0", "zlib1g"),
    }


async def test_another_kernel_is_followed_in_the_same_way(apt: Apt) -> None:
    apt({"linux-image-amd64": "linux-image-7.2.12+deb14-amd64", **TESTING})
    assert await kernel_packages("linux-image-amd64") == (
        "7.2.12+deb14-amd64",
        {"linux-image-7.2.12+deb14-amd64"},
    )


@pytest.mark.parametrize(
    ("without", "complaint"),
    [
        ("linux-image-cloud-amd64", "linux-image-cloud-amd64 depends on no versioned package; run `apt-get update`"),
        ("python3-minimal", "python3-minimal depends on no versioned package; run `apt-get update`"),
    ],
)
async def test_lists_that_lead_nowhere_are_said_to_be_out_of_date(apt: Apt, without: str, complaint: str) -> None:
    apt({**TRIXIE, without: "dpkg", "libpython3-stdlib": "libc6"})
    with pytest.raises(ImageError, match=complaint):
        await packages_of(AgentKind.BUILTIN)
