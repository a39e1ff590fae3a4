"""`vmpool image`: the guest image."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from actors.errors import describe
from pool.cli.options import EXIT_INTERRUPTED, EXIT_USAGE, failure
from pool.cli.output import remark, say
from pool.cli.words import HostPath
from pool.host.paths import default_image_directory
from vmm.errors import VmmError
from vmm.initramfs.image import GuestImage, ImageProgress, build_image, load_image
from vmm.words.machines import AgentKind

_STAGES: Final = {
    "resolve": "resolving versions with apt",
    "download": "downloading Debian packages",
    "extract": "unpacking",
    "compile": "compiling Python modules",
    "assemble": "assembling the initramfs",
    "done": "done",
}


def _directory_option(command: Any) -> Any:
    return click.option(
        "--directory",
        type=HostPath(file_okay=False),
        default=default_image_directory,
        help="Directory of the image; default: $VMPOOL_IMAGE_DIR, else build/image of a checkout, else the cache "
        "directory.",
    )(command)


@click.group()
def image() -> None:
    """The guest image: Debian's cloud kernel, and an initramfs with busybox, Python and the agent."""


@image.command()
@_directory_option
@click.option(
    "--agent",
    type=click.Choice([AgentKind.BUILTIN.value, AgentKind.QGA.value]),
    default=AgentKind.BUILTIN.value,
    help="Agent in the guest; an image with qga needs its own --directory.",
)
def build(directory: Path, agent: str) -> None:
    """Build the image from Debian packages, unless it is up to date."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as display:
        task = display.add_task("guest image", total=1.0)

        def show(progress: ImageProgress) -> None:
            display.update(task, description=_STAGES[progress.stage], completed=progress.fraction)
            if not console.is_terminal and progress.fraction == 0.0:
                remark(f"guest image: {_STAGES[progress.stage]}")

        try:
            built = trio.run(partial(build_image, directory, progress=show, agent=AgentKind(agent)))
        except* VmmError as errors:
            message, code = describe(errors), EXIT_USAGE
        except* KeyboardInterrupt:
            message, code = "interrupted; no partial image is left", EXIT_INTERRUPTED
        else:
            display.stop()
            _show(built)
            return
    raise failure(message, code=code)


@image.command()
@_directory_option
def show(directory: Path) -> None:
    """Show the image's files and versions."""
    try:
        _show(load_image(directory))
    except VmmError as error:
        raise failure(str(error), code=EXIT_USAGE) from error


def _show(built: GuestImage) -> None:
    for path in (built.kernel, built.initrd):
        say(f"{path}  {path.stat().st_size / 2**20:.1f} MiB")
    say(f"kernel {built.kernel_release}, inputs {built.inputs_sha256[:12]}")
