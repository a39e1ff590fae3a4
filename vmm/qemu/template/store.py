"""A template on disk: three files, of which the manifest is written last.

A directory without a valid manifest holds no template, whatever else is in it. The manifest has sizes and hashes of
the other two, so a truncated or corrupted template is not used either.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import cattrs

from vmm.errors import LockHeldError, TemplateError
from vmm.files import FileIdentity, identify
from vmm.lock import take_lock
from vmm.places import check_can_make, exposure
from vmm.sealed import SealedMemory

_FILES: Final = ("manifest.json", "manifest.new", "state", "memory")

_HEADROOM_MIB: Final = 16
"""Beside the memory file: 0.4 MB of device state, the manifest, and the file system's overhead."""


@attrs.frozen(kw_only=True)
class StoredFile:
    """A file's size and hash when it was published."""

    size: int
    blake2b: str


@attrs.frozen(kw_only=True)
class _Manifest:
    fingerprint: str
    memory: StoredFile
    state: StoredFile


@attrs.frozen(kw_only=True)
class Template:
    """A template that was complete when it was published or opened. Its files are read-only from then on."""

    directory: Path
    fingerprint: str
    sealed: SealedMemory = attrs.field(repr=False, eq=False)
    """A copy of its memory file from when it was published or opened; clones map this."""
    _identities: tuple[FileIdentity, ...] = attrs.field(repr=False)

    @property
    def memory(self) -> Path:
        return self.directory / "memory"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def check(self) -> None:
        """Raises TemplateError if a file is not the one that was published or opened: gone, replaced or written to.

        Compares inodes, not contents; cheap enough to be called before each clone.
        """
        try:
            now = tuple(identify(path) for path in (self.memory, self.state))
        except OSError as error:
            raise TemplateError(directory=self.directory, reason=f"{error.strerror}: {error.filename}") from error
        if now != self._identities:
            raise TemplateError(directory=self.directory, reason="its files have changed since it was made")


class TemplateStore:
    """The directory of one template. Writers hold `own` meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def _lock(self) -> Path:
        """Beside the directory, which is removed and made anew."""
        return self.directory.with_name(f"{self.directory.name}.lock")

    @property
    def _manifest(self) -> Path:
        return self.directory / "manifest.json"

    def check_place(self, *, writes: bool) -> None:
        """Raises TemplateError for a directory that can never hold a template: others can change it, it is used for
        something else, or, for a caller that `writes`, it cannot be made. Changes nothing.
        """
        self._check_private()
        self._check_strangers()
        if not writes:
            return
        try:
            lock = self._lock.lstat() if os.path.lexists(self._lock) else None
            check_can_make(self.directory.parent)
        except OSError as error:
            raise TemplateError(
                directory=self.directory,
                reason=f"{error.strerror}: {error.filename}; set template_directory to a path that can be created",
            ) from error
        if lock is not None and (lock.st_uid != os.geteuid() or not stat.S_ISREG(lock.st_mode)):
            raise TemplateError(
                directory=self.directory,
                reason=f"its lock {self._lock} is not ours (uid {lock.st_uid}); remove it, or set template_directory "
                "to another place",
            )

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Keeps other processes from writing: two writers would remove each other's templates.

        Raises TemplateError if another process owns the directory, or others can change it; OSError.
        """
        with contextlib.ExitStack() as cleanup:
            self._make_parent()
            self._check_private()
            try:
                take_lock(self._lock, cleanup)
            except LockHeldError as error:
                raise TemplateError(
                    directory=self.directory,
                    reason=f"process {error.pid or '(unknown)'} uses it ({error.lock}); "
                    "stop it, or set template_directory to a place of its own",
                ) from error
            yield

    def begin(self, *, memory_mib: int) -> tuple[Path, Path]:
        """Clears the directory and makes an empty memory file of that size. Returns the paths of memory and state.

        Raises TemplateError if there is not enough space, OSError.
        """
        self._check_private()
        self.clear()
        self._make_parent()
        self.directory.mkdir(mode=0o700)
        self._check_private()
        free_mib = shutil.disk_usage(self.directory).free // 2**20
        if free_mib < memory_mib + _HEADROOM_MIB:
            raise TemplateError(
                directory=self.directory,
                reason=f"{memory_mib + _HEADROOM_MIB} MiB are needed and {free_mib} MiB are free; "
                "free some, or set template_directory to a file system with more space",
            )
        memory, state = self.directory / "memory", self.directory / "state"
        descriptor = os.open(memory, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, memory_mib * 2**20)
        finally:
            os.close(descriptor)
        return memory, state

    def publish(self, *, fingerprint: str) -> Template:
        """Makes the files in the directory a template, by writing its manifest; no QEMU may use them any more.

        The files become the service's, whatever user QEMU ran as. Hashes both files and copies the memory. Raises
        OSError.
        """
        memory, state = self.directory / "memory", self.directory / "state"
        for path in (memory, state):
            os.chown(path, os.geteuid(), os.getegid())
            path.chmod(0o400)
        manifest = _Manifest(fingerprint=fingerprint, memory=_describe(memory), state=_describe(state))
        new = self._manifest.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(attrs.asdict(manifest), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._manifest)
        return self._template(fingerprint)

    def open(self, *, fingerprint: str) -> Template:
        """The template with that fingerprint. Reads both files whole. Raises TemplateError if it does not exist."""
        self._check_private()
        try:
            table = json.loads(self._manifest.read_bytes())
            manifest = _converter.structure(table if isinstance(table, dict) else {}, _Manifest)
        except FileNotFoundError as error:
            raise TemplateError(directory=self.directory, reason="it does not exist") from error
        except (OSError, ValueError, cattrs.BaseValidationError) as error:
            raise TemplateError(directory=self.directory, reason=f"its manifest cannot be used: {error}") from error
        if manifest.fingerprint != fingerprint:
            raise TemplateError(
                directory=self.directory,
                reason=f"it is another machine's ({manifest.fingerprint[:12]}, not {fingerprint[:12]})",
            )
        for name, wanted in (("memory", manifest.memory), ("state", manifest.state)):
            try:
                found = _describe(self.directory / name)
            except OSError as error:
                raise TemplateError(directory=self.directory, reason=f"{error.strerror}: {error.filename}") from error
            if found != wanted:
                raise TemplateError(directory=self.directory, reason=f"its {name} file differs from the saved one")
        return self._template(fingerprint)

    def clear(self) -> None:
        """Removes the template and its directory; the manifest first, so that a partly removed template is not used.

        Raises TemplateError, and removes nothing, if the directory has anything that is not a template's.
        """
        if not self._check_strangers():
            return
        for name in _FILES:
            (self.directory / name).unlink(missing_ok=True)
        self.directory.rmdir()

    def _check_strangers(self) -> bool:
        """Whether the directory exists. Raises TemplateError if it has anything that is not a template's."""
        try:
            found = {entry.name for entry in self.directory.iterdir()}
        except FileNotFoundError:
            return False
        except NotADirectoryError as error:
            raise TemplateError(
                directory=self.directory, reason="it is not a directory; set template_directory to another place"
            ) from error
        if strangers := sorted(found - set(_FILES)):
            raise TemplateError(
                directory=self.directory,
                reason=f"it has other files ({', '.join(strangers[:3])}); set template_directory to a place of its own",
            )
        return True

    def _make_parent(self) -> None:
        self.directory.parent.parent.mkdir(parents=True, exist_ok=True)
        self.directory.parent.mkdir(mode=0o700, exist_ok=True)

    def _check_private(self) -> None:
        """Its name can be guessed, and others may write to its parent: files that others could have put there are not
        used.
        """
        if exposed := exposure(self.directory):
            reason = exposed.told(otherwise="set template_directory to a place of your own")
            raise TemplateError(directory=self.directory, reason=reason)

    def _template(self, fingerprint: str) -> Template:
        paths = (self.directory / "memory", self.directory / "state")
        return Template(
            directory=self.directory,
            fingerprint=fingerprint,
            identities=tuple(identify(path) for path in paths),
            sealed=SealedMemory.copy_of(paths[0]),
        )


def _describe(path: Path) -> StoredFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b").hexdigest()
        return StoredFile(size=os.fstat(file.fileno()).st_size, blake2b=digest)


_converter: Final = cattrs.Converter(forbid_extra_keys=True)
