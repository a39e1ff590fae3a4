"""`vmpool install-unit`: the service under systemd."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from pool.cli.options import EXIT_USAGE, failure
from pool.cli.output import remark, say
from pool.cli.program import own_program
from pool.cli.words import HostPath
from pool.host.paths import cache_directory
from pool.systemd.files import Done, install, uninstall
from pool.systemd.places import first_closed, first_of_others, places_of
from pool.systemd.unit import UnitError, unit_for

_ELSEWHERE: Final = "install vmpool in a directory that root owns and all may read, such as /opt/vmpool"
_NEXT: Final = ("systemd-sysusers", "vmpool image build", "systemctl daemon-reload", "systemctl enable --now vmpool")


@click.command("install-unit")
@click.option(
    "--command",
    "named",
    type=HostPath(),
    metavar="PATH",
    help="Command that the unit starts, used as given; default: this one.",
)
@click.option(
    "--root",
    type=HostPath(file_okay=False, exists=True),
    default=Path("/"),
    metavar="DIR",
    help="Write below DIR, to build a package for example.",
)
@click.option("--print", "print_only", is_flag=True, help="Print the unit and write nothing.")
@click.option("--uninstall", "remove", is_flag=True, help="Remove the written files; a changed configuration stays.")
def install_unit(*, named: Path | None, root: Path, print_only: bool, remove: bool) -> None:
    """Write a systemd unit that starts this command, its user, and a configuration unless one exists.

    Neither starts nor enables the unit, but prints the commands that do.
    """
    if remove and (print_only or named is not None):
        raise click.UsageError("--uninstall can be combined with --root only")
    try:
        if remove:
            _print_done(uninstall(root=root))
            if root == Path("/"):
                _print_kept()
            return
        unit = _unit(named)
        if print_only:
            click.echo(unit, nl=False)
            return
        _print_done(install(unit, root=root))
    except UnitError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}; run install-unit as root, or with --root DIR"
    else:
        if root == Path("/"):
            say("next:\n" + "\n".join(f"    {line}" for line in _NEXT))
        return
    raise failure(message, code=EXIT_USAGE)


def _unit(named: Path | None) -> str:
    """Raises `UnitError` if the service could not execute the command."""
    if named is not None:
        return unit_for(named)
    program = own_program()
    if program is None:
        raise UnitError("this program was not started as `vmpool`; name the command with --command PATH")
    places = places_of(program)
    unit = unit_for(program, places=places)
    if (closed := first_closed(places)) is not None:
        raise UnitError(
            f"{closed.path} (mode {closed.mode & 0o7777:o}, uid {closed.uid}) is inaccessible to the service, which "
            f"runs as root without CAP_DAC_OVERRIDE; {_ELSEWHERE}"
        )
    if (place := first_of_others(places)) is not None:
        remark(
            f"warning: the service runs as root and executes files in {place.path} (mode {place.mode & 0o7777:o}, "
            f"uid {place.uid}), which other users can change; {_ELSEWHERE}"
        )
    return unit


def _print_done(done: list[Done]) -> None:
    for one in done:
        say(f"{one.deed.value} {one.path}" + (f": {one.why}" if one.why else ""))


def _print_kept() -> None:
    """Names the directories that the service may have made."""
    say("next:\n    systemctl daemon-reload")
    kept = [str(path) for path in (cache_directory(uid=0), Path("/run/vmpool")) if path.exists()]
    if kept:
        say("kept, since the service may have made them: " + ", ".join(kept))
