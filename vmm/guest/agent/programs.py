"""What is to be executed, and why it cannot be."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEFAULT_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}

PROGRAM = "program"
WORKING_DIRECTORY = "working_directory"


class SpawnError(OSError):
    """A process cannot be started because of a part of the request, which `part` names."""

    def __init__(self, part: str, name: str, cause: OSError) -> None:
        super().__init__(cause.errno, f"{name}: {cause.strerror}")
        self.part = part


class Program:
    """What is to be executed."""

    __slots__ = ("argv", "directory", "environment")

    def __init__(self, argv: list[str], environment: dict[str, str], directory: str) -> None:
        self.argv = argv
        self.environment = environment
        self.directory = directory

    def start(self, attempt: Callable[[str], int]) -> int:
        """The result of `attempt` for the first path at which there is something to execute, as execvp looks for it.

        Raises the OSError that says most of why there is nothing.
        """
        reason: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        for path in self._paths():
            try:
                return attempt(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError as error:
                reason = error  # unless a later candidate may be executed
            except OSError as error:
                reason = error
                break
        raise reason

    def _paths(self) -> Iterator[str]:
        name = self.argv[0]
        if "/" in name:
            yield name
            return
        for directory in self.environment.get("PATH", DEFAULT_ENVIRONMENT["PATH"]).split(":"):
            yield f"{directory or '.'}/{name}"
