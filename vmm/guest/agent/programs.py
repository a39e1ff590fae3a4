"""What is to be executed, and why it cannot be."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

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

    def paths(self) -> Iterator[str]:
        """Where to look for it, as execvp does."""
        name = self.argv[0]
        if "/" in name:
            yield name
            return
        for directory in self.environment.get("PATH", DEFAULT_ENVIRONMENT["PATH"]).split(":"):
            yield f"{directory or '.'}/{name}"
