"""The private directory of one VM: its sockets and logs, and its devices' files."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import attrs

from vmm.errors import MissingFileError, SpecError
from vmm.sockets import MAX_SOCKET_PATH_BYTES


@attrs.frozen
class VmDirectory:
    """The paths of one VM. Making the record touches nothing."""

    root: Path

    @property
    def qmp_socket(self) -> Path:
        return self.root / "qmp.sock"

    @property
    def qemu_log(self) -> Path:
        """QEMU's stdout and stderr."""
        return self.root / "qemu.log"

    @property
    def cgroups(self) -> Path:
        """The VM's cgroups and their limits; see `VmGroup.record`. Missing if the VM has none."""
        return self.root / "cgroups"

    def create(self, sockets: Iterable[str] = ()) -> None:
        """Makes the directory, mode 0700, and its parent if only that is missing, for example removed.

        `sockets`: the names of the sockets in it beside QMP's.
        Raises SpecError if the path is in use or too long for sockets, MissingFileError if it cannot be made.
        """
        for path in (self.qmp_socket, *(self.root / name for name in sockets)):
            if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
                raise SpecError(
                    field="directory",
                    value=str(self.root),
                    reason=f"the Unix socket {path} would exceed Linux's maximum of {MAX_SOCKET_PATH_BYTES} bytes; "
                    "choose a shorter directory",
                )
        try:
            if not self.root.parent.exists():
                self.root.parent.mkdir(mode=0o700)
            self.root.mkdir(mode=0o700)
        except FileExistsError:
            raise SpecError(
                field="directory", value=str(self.root), reason="exists already; give each VM a directory of its own"
            ) from None
        except FileNotFoundError:
            raise MissingFileError(
                field="directory", path=self.root.parent.parent, remedy="create it, owned by the service's user"
            ) from None

    def remove(self) -> None:
        """Removes the directory and all that is in it. Idempotent."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root)
