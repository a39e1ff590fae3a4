"""A search for text in files: a program for a guest, whose own grep may be busybox's, which cannot do it.

Arguments: where to search, what to search for, a pattern for the names of files (empty for all), how many matches are
enough (0 for all), names of directories to leave out. Each match is a line of JSON: path, number of the line, text.
"""

from __future__ import annotations

import fnmatch
import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HEAD_BYTES = 8192
"""A file with a NUL in so many bytes is no text."""


def files_of(root: str, name_pattern: str, left_out: set[str]) -> Iterator[str]:
    """Regular files below a directory, in order; symbolic links are not followed. Or the file itself."""
    if os.path.isfile(root):
        yield root
        return
    for directory, directories, names in os.walk(root):
        directories[:] = sorted(set(directories) - left_out)
        for name in sorted(names):
            path = os.path.join(directory, name)
            if fnmatch.fnmatchcase(name, name_pattern or "*") and not os.path.islink(path) and os.path.isfile(path):
                yield path


def matches_in(path: str, wanted: Sequence[bytes]) -> Iterator[tuple[int, str]]:
    """Lines with one of the texts, by number; none of a file that is no text, or cannot be read."""
    try:
        with open(path, "rb") as file:
            if b"\0" in file.read(HEAD_BYTES):
                return
            file.seek(0)
            for number, line in enumerate(file, 1):
                if any(text in line for text in wanted):
                    yield number, line.rstrip(b"\n").decode("utf-8", "replace")
    except OSError:
        return


def main() -> None:
    root, pattern, name_pattern, enough, *left_out = sys.argv[1:]
    if not os.path.lexists(root):
        sys.exit("no such file or directory")
    wanted = [os.fsencode(text) for text in pattern.split("\n")]
    found = 0
    for path in files_of(root, name_pattern, set(left_out)):
        for number, text in matches_in(path, wanted):
            print(json.dumps([path, number, text]))
            found += 1
            if found == int(enough):
                return


if __name__ == "__main__":
    main()
