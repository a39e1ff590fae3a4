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

_ELSEWHERE: Final = "install vmpool in a directory of root's that all may read, /opt/vmpool for instance"
_NEXT: Final = ("systemd-sysusers", "vmpool image build", "systemctl daemon-reload", "systemctl enable --now vmpool")


@click.command("install-unit")
@click.option(
    "--command",
    "named",
    type=HostPath(),
    metavar="PATH",
    help="What the unit starts, taken at its word; default: this very command.",
)
@click.option(
    "--root",
    type=HostPath(file_okay=False, exists=True),
    default=Path("/"),
    metavar="DIR",
    help="Write below DIR, as for a package.",
)
@click.option("--print", "print_only", is_flag=True, help="Print the unit and write nothing.")
@click.option("--uninstall", "remove", is_flag=True, help="Remove what was written; a changed configuration stays.")
def install_unit(*, named: Path | None, root: Path, print_only: bool, remove: bool) -> None:
    """Write a systemd unit that starts this command, its user, and a configuration if there is none.

    Starts and enables nothing, and says what does. A configuration that is there is left as it is.
    """
    if remove and (print_only or named is not None):
        raise click.UsageError("--uninstall takes --root and nothing else")
    try:
        if remove:
            _tell(uninstall(root=root))
            if root == Path("/"):
                _say_what_stays()
            return
        unit = _unit(named)
        if print_only:
            click.echo(unit, nl=False)
            return
        _tell(install(unit, root=root))
    except UnitError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}; install-unit is for root, or with --root DIR"
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
        raise UnitError("this was not started as `vmpool`; name the command with --command PATH")
    places = places_of(program)
    unit = unit_for(program, places=places)
    if (closed := first_closed(places)) is not None:
        raise UnitError(
            f"{closed.path} (mode {closed.mode & 0o7777:o}, uid {closed.uid}) is closed to the service, which is root "
            f"without CAP_DAC_OVERRIDE; {_ELSEWHERE}"
        )
    if (place := first_of_others(places)) is not None:
        remark(
            f"warning: the service is root and executes what is in {place.path} (mode {place.mode & 0o7777:o}, "
            f"uid {place.uid}), which others can change; {_ELSEWHERE}"
        )
    return unit


def _tell(done: list[Done]) -> None:
    for one in done:
        say(f"{one.deed.value} {one.path}" + (f": {one.why}" if one.why else ""))


def _say_what_stays() -> None:
    """What the service made."""
    say("next:\n    systemctl daemon-reload")
    kept = [str(path) for path in (cache_directory(uid=0), Path("/run/vmpool")) if path.exists()]
    if kept:
        say("left, as the service may have made it: " + ", ".join(kept))
