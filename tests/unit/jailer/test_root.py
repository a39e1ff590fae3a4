"""The root directory that a program is given: for whom it is, and how things are found in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from pool.settings.config import parse_settings
from tests.leaks import nothing_left
from tests.unit.confinement.jailed import SPEC
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.confinement.layers import Layers
from vmm.qemu.confinement.making import jailed, user_for
from vmm.words.confinement import Layer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user to start programs as")


@pytest.fixture
def confinement() -> Iterator[Confinement]:
    settings = parse_settings("[profiles.default]\n", source="test")
    with (
        nothing_left(),
        jailed(settings.service.confinement_wish, user=user_for(settings.service.confinement_wish)) as confinement,
    ):
        if Layer.MOUNT_NAMESPACE not in confinement.layers.applied:
            pytest.skip(f"no root directories here: {confinement.layers.missing}")
        yield confinement


@pytest.fixture
def umask_of_the_unit() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


async def said(confinement: Confinement, program: Path, *arguments: str, log: Path) -> str:
    spec = attrs.evolve(SPEC, qemu=program)
    process = confinement.spawn([str(program), *arguments], spec=spec, group=VmGroup(), log=log, readable=())
    report = await process.wait_exited()
    assert report.status == 0, report
    return report.stderr_tail


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that anybody may enter."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def cat_in(place: Path) -> Path:
    """A program in a directory of its own."""
    program = place / "10.1" / "bin" / "qemu"
    for directory in (program.parent.parent, program.parent):
        directory.mkdir()
        directory.chmod(0o755)
    shutil.copy("/bin/cat", program)
    return program


@pytest.mark.parametrize("without", [None, Layer.USER_NAMESPACE])
@pytest.mark.usefixtures("umask_of_the_unit")
async def test_who_it_is_for_reaches_what_is_in_it(
    confinement: Confinement, place: Path, tmp_path: Path, without: Layer | None
) -> None:
    """Without a user namespace it is not he who makes it."""
    confinement = attrs.evolve(confinement, layers=Layers(applied=confinement.layers.applied - {without}))
    assert await said(confinement, cat_in(place), os.devnull, log=tmp_path / "log") == ""


async def test_links_on_the_way_to_the_program_are_there(confinement: Confinement, place: Path, tmp_path: Path) -> None:
    """As /opt/qemu is one to the latest version, and /etc/alternatives has them."""
    cat_in(place)
    (place / "current").symlink_to("10.1")
    (place / "x").mkdir()
    (place / "alternative").symlink_to(place / "x" / ".." / "current" / "bin" / "qemu")
    for number, program in enumerate((place / "current" / "bin" / "qemu", place / "alternative")):
        assert await said(confinement, program, os.devnull, log=tmp_path / f"log {number}") == ""


async def test_of_proc_there_are_its_own_processes_and_nothing_of_the_kernels(
    confinement: Confinement, place: Path, tmp_path: Path
) -> None:
    """Landlock shuts it altogether, where there is Landlock."""
    confinement = attrs.evolve(confinement, layers=Layers(applied=confinement.layers.applied - {Layer.LANDLOCK}))
    program = place / "qemu"
    program.write_text("#!/bin/sh\necho /proc/*\n")
    program.chmod(0o755)
    assert await said(confinement, program, log=tmp_path / "log") == "/proc/1 /proc/self /proc/thread-self"


@pytest.mark.parametrize("shell", ["sh", "bash"])
async def test_a_script_may_be_in_the_place_of_qemu(
    confinement: Confinement, place: Path, tmp_path: Path, shell: str
) -> None:
    """bash looks up who it is, by a socket."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    script = place / "qemu"
    script.write_text(f'#!/usr/bin/env {shell}\nOPTION=1 exec /bin/echo "$@"\n')
    script.chmod(0o755)
    assert await said(confinement, script, "a b", log=tmp_path / "log") == "a b"
