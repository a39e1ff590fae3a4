"""The unit's files on a host: written, replaced and removed, while files from elsewhere are left alone."""

from __future__ import annotations

import enum
import importlib.resources
import os
import tempfile
from pathlib import Path
from typing import Final

import attrs

from pool.systemd.unit import UnitError, packaged_user

UNIT: Final = Path("/etc/systemd/system/vmpool.service")
USER: Final = Path("/etc/sysusers.d/vmpool.conf")
CONFIGURATION: Final = Path("/etc/vmpool/vmpool.toml")
_FIRST_WORDS: Final = {UNIT: b"# vmpool under systemd", USER: b"# The user that QEMU runs as"}
_ENABLED: Final = Path("/etc/systemd/system/multi-user.target.wants/vmpool.service")


class Deed(enum.Enum):
    WROTE = "wrote"
    KEPT = "kept"
    REMOVED = "removed"


@attrs.frozen
class Done:
    """The outcome for one file."""

    deed: Deed
    path: Path
    why: str = ""


def install(unit: str, *, root: Path) -> list[Done]:
    """Writes unit and user below `root`, and a configuration if none exists. Raises `UnitError` and OSError."""
    _refuse_what_is_not_ours(root)
    done = [_write(_below(root, UNIT), unit), _write(_below(root, USER), packaged_user())]
    configuration = _below(root, CONFIGURATION)
    if os.path.lexists(configuration):
        return [*done, Done(Deed.KEPT, configuration, "it existed already")]
    return [*done, _write(configuration, _default_configuration())]


def uninstall(*, root: Path) -> list[Done]:
    """Removes what `install` wrote; a configuration only if it is unchanged. Raises `UnitError` and OSError."""
    if os.path.lexists(_below(root, _ENABLED)):
        raise UnitError("the unit is enabled; run `systemctl disable --now vmpool` first")
    _refuse_what_is_not_ours(root)
    done = [_remove(path) for name in _FIRST_WORDS if (path := _below(root, name)).exists()]
    configuration = _below(root, CONFIGURATION)
    if not os.path.lexists(configuration):
        return done
    if configuration.is_symlink() or configuration.read_bytes() != _default_configuration().encode():
        return [*done, Done(Deed.KEPT, configuration, "it differs from the default")]
    done.append(_remove(configuration))
    if not any(configuration.parent.iterdir()):
        configuration.parent.rmdir()
    return done


def _default_configuration() -> str:
    return importlib.resources.files("pool").joinpath("default.toml").read_text(encoding="utf-8")


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _refuse_what_is_not_ours(root: Path) -> None:
    for name, first_words in _FIRST_WORDS.items():
        path = _below(root, name)
        if path.is_symlink():
            raise UnitError(f"{path} is a link to {path.readlink()}, as for a masked unit; remove it first")
        if path.exists() and not path.read_bytes().startswith(first_words):
            raise UnitError(f"{path} was not written by install-unit; move it away first")


def _write(path: Path, text: str) -> Done:
    """Writes atomically, and readable for all users, whatever the umask."""
    missing = [directory for directory in (path.parent, *path.parent.parents) if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir()
        directory.chmod(0o755)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", delete=False
    ) as file:
        fresh = Path(file.name)
        try:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    return Done(Deed.WROTE, path)


def _remove(path: Path) -> Done:
    path.unlink()
    return Done(Deed.REMOVED, path)
