"""Files in the guest."""

from __future__ import annotations

from typing import Protocol

from vmm.contract.streams import ByteSource, RecordSource
from vmm.words.commands import WHOLE, Room
from vmm.words.files import FileChange, FileEdit, FileInfo, FileWrite, TreeSummary, TreeWrite


class FileReader(ByteSource, Protocol):
    @property
    def info(self) -> FileInfo:
        """The file when it was opened."""


class FileWriter(Protocol):
    """A file that is being written. Its owner must `aclose` it; before `finish`, that gives the write up."""

    async def send(self, data: bytes) -> None:
        """Waits while the guest does not take it. Raises AgentError."""

    async def finish(self) -> FileInfo:
        """Returns when everything is written, and an atomic write in its place. Raises AgentError."""

    async def aclose(self) -> None:
        """Idempotent; never raises AgentError; under cancellation the end is still sent."""


class TreeWriter(Protocol):
    """A tar stream that is being extracted. As FileWriter, but what has been extracted stays."""

    async def send(self, data: bytes) -> None: ...

    async def finish(self) -> TreeSummary: ...

    async def aclose(self) -> None: ...


class GuestFiles(Protocol):
    """Safe for concurrent use. `user` is a name or number in the guest, empty for root.

    Everything raises AgentRequestError for what the guest refuses, with the errno as its code: ENOENT, EISDIR, EACCES,
    ELOOP, ENAMETOOLONG, ENOSPC, EINVAL (not a regular file, a member that leaves the tree), and so on. An unknown user
    is code "EINVAL", part "user". A cancelled request is ended in the guest.
    """

    async def stat(self, path: bytes, *, user: str = "", follow: bool = True) -> FileInfo: ...

    async def edit(self, edit: FileEdit, *, user: str = "") -> FileInfo | None:
        """Makes, moves, copies, removes, links, or sets attributes. What then is there; None after a removal."""

    async def list(
        self, path: bytes, *, depth: int = 1, user: str = "", room: Room = WHOLE
    ) -> RecordSource[FileInfo]: ...

    async def read(
        self, path: bytes, *, offset: int = 0, length: int | None = None, user: str = "", room: Room = WHOLE
    ) -> FileReader: ...

    async def write(self, write: FileWrite, *, user: str = "", room: Room = WHOLE) -> FileWriter:
        """Returns when the file is open in the guest."""

    async def watch(
        self, path: bytes, *, recursive: bool = False, user: str = "", room: Room = WHOLE
    ) -> RecordSource[FileChange]:
        """Returns when the guest watches. Ends with code "ENOENT" when the path itself is removed."""

    async def read_tree(self, path: bytes, *, user: str = "", room: Room = WHOLE) -> ByteSource: ...

    async def write_tree(self, write: TreeWrite, *, user: str = "", room: Room = WHOLE) -> TreeWriter: ...
