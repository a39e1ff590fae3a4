"""Compiles modules for the guest. Runs in the guest's own interpreter, whose version may differ from the host's.

Arguments: source directory, target directory, directory in the guest; paths of modules, one per line, on stdin.
"""

import pathlib
import py_compile
import sys


def main() -> None:
    source, target, guest = sys.argv[1:]
    for line in sys.stdin.read().splitlines():
        py_compile.compile(
            f"{source}/{line}",
            cfile=str(pathlib.Path(target, line).with_suffix(".pyc")),
            dfile=f"{guest}/{line}",
            doraise=True,
            optimize=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


if __name__ == "__main__":
    main()
