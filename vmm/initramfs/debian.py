"""Downloads and extracts packages of the host's Debian release without installing them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import trio

from vmm.initramfs.errors import ImageError


@attrs.frozen(kw_only=True, order=True)
class Package:
    """One version of a package."""

    name: str
    version: str

    def file_name(self, architecture: str) -> str:
        """The name that `apt-get download` gives it."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{architecture}.deb"


async def depends(*packages: str) -> list[str]:
    """Names of the packages that these depend on, without virtual ones. Raises ImageError if one is unknown."""
    text = await _run("resolve", "apt-cache", "depends", "--", *packages)
    return re.findall(r"^ *\|?(?:Pre)?Depends: ([a-z0-9][a-z0-9+.-]*)$", text, re.MULTILINE)


async def candidates(names: Sequence[str]) -> list[Package]:
    """The versions that apt would install now, in the order of `names`. Raises ImageError if a package has none."""
    text = await _run("resolve", "apt-cache", "policy", "--", *names)
    versions = dict(re.findall(r"^(\S+):\n +Installed: .*\n +Candidate: (\S+)$", text, re.MULTILINE))
    missing = [name for name in names if versions.get(name, "(none)") == "(none)"]
    if missing:
        raise ImageError(
            stage="resolve",
            reason=f"apt knows no package {', '.join(missing)}",
            remedy="run `apt-get update` with Debian's main archive in the apt sources",
        )
    return [Package(name=name, version=versions[name]) for name in names]


async def fetch(packages: Sequence[Package], cache: Path, *, on_done: Callable[[float], None]) -> list[Path]:
    """Paths of the packages' files in `cache`; downloads missing ones. Raises ImageError."""
    architecture = (await _run("download", "dpkg", "--print-architecture")).strip()
    await trio.to_thread.run_sync(lambda: cache.mkdir(parents=True, exist_ok=True))
    files = []
    for count, package in enumerate(packages):
        on_done(count / len(packages))
        found = [cache / package.file_name(which) for which in (architecture, "all")]
        if not any(path.is_file() for path in found):
            # apt writes under a temporary name and renames, so an existing file is complete.
            await _run("download", "apt-get", "download", "--", f"{package.name}={package.version}", cwd=cache)
        file = next((path for path in found if path.is_file()), None)
        if file is None:
            raise ImageError(
                stage="download",
                reason=f"apt-get did not download {found[0].name}",
                remedy=f"remove damaged files from {cache} and build again",
            )
        files.append(file)
    on_done(1.0)
    return files


async def extract(file: Path, directory: Path) -> None:
    """Unpacks a package's files without running its scripts. Raises ImageError."""
    await _run("extract", "dpkg-deb", "--extract", str(file), str(directory))


async def _run(stage: str, *argv: str, cwd: Path | None = None) -> str:
    try:
        done = await trio.run_process(
            argv,
            cwd=cwd,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise ImageError(
            stage=stage,
            reason=f"the program {argv[0]} is not installed",
            remedy="the image consists of Debian packages; build it on Debian or Ubuntu and copy the directory here",
        ) from error
    if done.returncode != 0:
        said = _last_line(done)
        raise ImageError(
            stage=stage,
            reason=f"`{' '.join(argv[:4])}` failed: {said}",
            remedy="check the network and the apt sources, run `apt-get update`, and build again",
        )
    return done.stdout.decode()


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"
