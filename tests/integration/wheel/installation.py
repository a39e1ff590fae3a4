"""A wheel of this tree, and a virtual environment of its own that it is installed into: no network, no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

import attrs

CHECKOUT = Path(__file__).parents[3]


def build_wheel(directory: Path) -> Path:
    done = subprocess.run(
        [CHECKOUT / "scripts" / "wheel", directory],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@attrs.frozen(kw_only=True)
class Installation:
    """An environment without pip; ours installs into it. What vmpool depends on is borrowed from our own."""

    path: Path

    @classmethod
    def made(cls, path: Path) -> Installation:
        venv.create(path, symlinks=True)
        made = cls(path=path)
        made._borrowed.write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
        return made

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def vmpool(self) -> Path:
        return self.path / "bin" / "vmpool"

    @property
    def _borrowed(self) -> Path:
        """A file of paths, which Python reads; of what is in these directories such files are not read again."""
        (packages,) = self.path.glob("lib/python*/site-packages")
        return packages / "borrowed.pth"

    def install(self, wheel: Path) -> None:
        self._pip("install", "--no-deps", "--no-index", "--ignore-installed", wheel)

    def uninstall(self) -> None:
        self._pip("uninstall", "--yes", "vmpool")

    def _pip(self, command: str, *arguments: str | Path) -> None:
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check"]
        subprocess.run([*pip, command, "--quiet", *arguments], check=True, timeout=120, cwd=self.path)

    def files(self) -> set[Path]:
        return {path.relative_to(self.path) for path in self.path.rglob("*")}

    def run(
        self, *argv: str | Path, cwd: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Somewhere outside of the checkout, of which nothing is in the environment either."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VMPOOL"))}
        return subprocess.run(
            argv,
            cwd=cwd,
            env=inherited | {"PYTHONWARNINGS": "error"} | dict(environment or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
