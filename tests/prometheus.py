"""Prometheus' programs: the host's, or those that `scripts/setup --dev` unpacked without installing a service."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

_UNPACKED: Final = Path(__file__).parents[1] / "build" / "prometheus" / "usr" / "bin"


def program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_UNPACKED)
