"""The programs that the documentation shows, and what they do when they are run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import trio

_CHECKOUT: Final = Path(__file__).parents[1]
_PAGES: Final = ("README.md", "docs/guide.md", "docs/tasks/untrusted-code.md", "docs/tasks/ci-job.md")
_SOCKET: Final = "/run/vmpool/vmpool.sock"
_LIMIT_S: Final = 120


@attrs.frozen
class Example:
    where: str
    text: str

    async def run(self, socket_path: Path) -> list[str]:
        """The lines that it prints, speaking to the service on that socket in place of the usual one."""
        done = await self.end(socket_path)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
        return done.stdout.decode().splitlines()

    async def end(
        self, socket_path: Path, *, directory: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """As `run`, in that directory, however it ends."""
        assert f'"{_SOCKET}"' in self.text or "connect()" in self.text, self.text
        with trio.fail_after(_LIMIT_S):
            return await trio.run_process(
                [sys.executable, "-W", "error", "-"],
                stdin=self.text.replace(_SOCKET, str(socket_path)).encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=directory,
                env={
                    **os.environ,
                    "VMPOOL_SOCKET": str(socket_path),
                    "PYTHONPATH": str(_CHECKOUT),
                    **(environment or {}),
                },
            )


def _examples() -> Iterator[Example]:
    """Those of the pages for users. Kata's annex, for programs of another kind, has tests of its own."""
    for page in _PAGES:
        blocks = re.findall(r"^```python\n(.*?)^```$", (_CHECKOUT / page).read_text(), re.DOTALL | re.MULTILINE)
        yield from (Example(f"{page} {number}", block) for number, block in enumerate(blocks, 1))


def of_docstring(module: str, text: str | None) -> Example:
    """The block of a docstring that stands in the middle of a program, in a program."""
    assert text is not None
    block = text.split("\n\n")[1]
    return Example(
        module,
        f"import trio\nimport {module}\nfrom {module} import open_client\nasync def main():\n{block}\ntrio.run(main)\n",
    )


EXAMPLES: Final = {example.where: example for example in _examples()}
