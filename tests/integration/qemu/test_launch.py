"""Launches that succeed, and the ways in which they do not."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest
import trio
import trio.testing

from tests.waiting import until
from vmm.errors import BootError, MissingFileError, SpecError, StopError, VmExitedError
from vmm.qemu import instance as instance_module
from vmm.qemu.adopt import adopt
from vmm.qemu.command_line import FileMemory, Start
from vmm.qemu.instance import Instance
from vmm.qemu.launch import launch
from vmm.qemu.process import command_line_of, start_time_of
from vmm.spec import MachineSpec
from vmm.words.processes import BootStage, ExitReport, ProcessIdentity

BOOT_LIMIT_S = 120.0


@pytest.mark.parametrize("field", ["qemu", "kernel", "initrd"])
async def test_a_missing_file_is_named_before_anything_is_started(
    spec: MachineSpec, vm_home: Path, nursery: trio.Nursery, field: str
) -> None:
    change: dict[str, Any] = {field: Path("/no/such/file")}
    absent = attrs.evolve(spec, **change)
    with pytest.raises(MissingFileError, match=f"{field}: /no/such/file") as caught:
        await launch(absent, vm_id="x", directory=vm_home / "x", nursery=nursery)
    assert caught.value.field == field
    assert caught.value.remedy


async def test_a_directory_too_long_for_sockets(spec: MachineSpec, vm_home: Path, nursery: trio.Nursery) -> None:
    directory = vm_home / ("d" * 100)
    with pytest.raises(SpecError, match="107 bytes; choose a shorter directory"):
        await launch(spec, vm_id="x", directory=directory, nursery=nursery)


async def test_a_directory_in_use_is_left_alone(spec: MachineSpec, tmp_path: Path, nursery: trio.Nursery) -> None:
    (tmp_path / "kept").write_text("precious")
    with pytest.raises(SpecError, match="exists already"):
        await launch(spec, vm_id="x", directory=tmp_path, nursery=nursery)
    assert (tmp_path / "kept").exists()


async def test_a_directory_without_parent(spec: MachineSpec, vm_home: Path, nursery: trio.Nursery) -> None:
    with pytest.raises(MissingFileError, match=f"{vm_home}/absent .*create it"):
        await launch(spec, vm_id="x", directory=vm_home / "absent" / "vms" / "x", nursery=nursery)


async def test_a_program_that_is_no_program(
    spec: MachineSpec, vm_home: Path, tmp_path: Path, nursery: trio.Nursery
) -> None:
    broken = tmp_path / "qemu"
    broken.write_bytes(b"\x7fELF not really")
    broken.chmod(0o755)
    with pytest.raises(BootError, match="cannot be started") as caught:
        await launch(attrs.evolve(spec, qemu=broken), vm_id="x", directory=vm_home / "x", nursery=nursery)
    assert caught.value.stage is BootStage.SPAWN


async def test_a_qemu_that_refuses_its_options_is_reported_at_once(
    spec: MachineSpec, vm_home: Path, nursery: trio.Nursery
) -> None:
    with pytest.raises(BootError, match="unsupported machine type") as caught:
        await launch(attrs.evolve(spec, machine_type="nonsense"), vm_id="x", directory=vm_home / "x", nursery=nursery)
    assert caught.value.stage is BootStage.QMP
    assert caught.value.exit_report is not None
    assert caught.value.exit_report.status == 1
    notes = "\n".join(caught.value.__notes__)
    assert "-machine type=nonsense" in notes
    assert f"boot files: {spec.kernel} and {spec.initrd}" in notes, "QEMU itself is given descriptors"


def test_a_kernel_that_goes_away_in_the_last_moment_is_named(spec: MachineSpec, vm_home: Path) -> None:
    """By us, who open it: QEMU would only know the number of a descriptor."""
    gone = attrs.evolve(spec, kernel=vm_home / "vmlinuz")
    with pytest.raises(BootError, match=f"No such file or directory: '{gone.kernel}'") as caught:
        Instance.start(gone, vm_id="x", directory=vm_home / "x")
    assert caught.value.stage is BootStage.SPAWN
    assert list(vm_home.iterdir()) == []


async def test_a_guest_that_panics_takes_qemu_with_it_and_its_last_words_are_kept(
    spec: MachineSpec, vm_home: Path, tmp_path: Path, nursery: trio.Nursery
) -> None:
    garbage = tmp_path / "initrd"
    garbage.write_bytes(b"no initramfs")
    with trio.fail_after(BOOT_LIMIT_S), pytest.raises(BootError) as caught:
        await launch(attrs.evolve(spec, initrd=garbage), vm_id="x", directory=vm_home / "x", nursery=nursery)
    assert caught.value.stage is BootStage.GUEST
    assert caught.value.exit_report is not None
    assert "Kernel panic" in "\n".join(caught.value.__notes__)


async def test_a_qemu_that_is_killed_while_its_guest_boots(
    spec: MachineSpec, vm_home: Path, nursery: trio.Nursery
) -> None:
    found: list[psutil.Process] = []

    async def is_there() -> bool:  # the kernel shows no command line in the first moment after an exec
        found[:] = [child for child in psutil.Process().children() if str(vm_home) in " ".join(child.cmdline())]
        return bool(found)

    async def kill_it() -> None:
        await until(is_there)
        found[0].kill()

    nursery.start_soon(kill_it)
    with pytest.raises(BootError, match="killed by signal 9"):
        await launch(spec, vm_id="x", directory=vm_home / "x", nursery=nursery)


async def test_what_others_may_see_of_a_vm(instance: Instance) -> None:
    root = instance.directory.root
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (root, *root.iterdir())}
    assert modes.pop(root.name) == "0o700"
    assert modes.keys() == {"qmp.sock", "agent.sock", "console.log", "qemu.log"}
    assert set(modes.values()) == {"0o600"}
    assert instance.directory.qemu_log.read_text() == ""


async def test_a_qemu_that_does_not_react_is_killed(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_module, "QUIT_LIMIT_S", 0.1)
    instance.process.send_signal(signal.SIGSTOP)
    assert (await instance.stop()).signal == signal.SIGKILL
    assert not instance.directory.root.exists()


async def test_a_qemu_that_does_not_die_keeps_its_directory_and_is_stopped_later(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def kill_in_vain() -> ExitReport:
        await trio.lowlevel.checkpoint()
        raise StopError(pid=instance.process.pid, limit_s=10, state="status: State: D (disk sleep)")

    with monkeypatch.context() as patched:
        patched.setattr(instance.process, "kill", kill_in_vain)
        with pytest.raises(StopError, match="disk sleep"):
            await instance.stop()
        assert instance.directory.root.exists()
    await instance.stop()
    assert not instance.directory.root.exists()


async def test_another_process_with_the_pid_of_a_vm_is_not_touched(vm_home: Path) -> None:
    identity = ProcessIdentity(pid=os.getpid(), start_time=1)
    with pytest.raises(VmExitedError, match="another, younger"):
        await adopt(identity, vm_id="x", directory=vm_home / "x")


@pytest.mark.parametrize("pid", [0, -1, 2**30])
async def test_a_pid_that_nobody_has(vm_home: Path, pid: int) -> None:
    with pytest.raises(VmExitedError, match="no longer running"):
        await adopt(ProcessIdentity(pid=pid, start_time=1), vm_id="x", directory=vm_home / "x")


async def test_a_process_that_is_no_qemu_of_this_vm_is_left_alone(vm_home: Path) -> None:
    own = start_time_of(os.getpid())
    assert own is not None
    with pytest.raises(VmExitedError, match=r"is not its QEMU: it is .*python"):
        await adopt(ProcessIdentity(pid=os.getpid(), start_time=own), vm_id="x", directory=vm_home / "x")


async def test_a_connection_that_was_given_up_is_made_anew(spec: MachineSpec, vm_home: Path) -> None:
    """QEMU serves one client at a time: the one that was given up must have hung up."""
    home = vm_home / "x"
    booting = Instance.start(spec, vm_id="x", directory=home)

    async def has_a_command_line() -> bool:
        return command_line_of(booting.process.pid) != []

    await until(has_a_command_line)  # the kernel shows none in the first moment after an exec
    await booting.detach()
    survivor = await adopt(booting.process.identity, vm_id="x", directory=home)

    async def qmp_is_connected() -> bool:
        return survivor._instance._qmp is not None

    try:
        with trio.fail_after(BOOT_LIMIT_S):
            async with trio.open_nursery() as nursery:
                async with trio.open_nursery() as impatient:
                    impatient.start_soon(lambda: survivor.connect(nursery=nursery))
                    await until(qmp_is_connected)
                    impatient.cancel_scope.cancel(reason="the guest has yet to boot")
                vm = await survivor.connect(nursery=nursery)
                assert await vm.agent.ping()
                await vm.stop()
    finally:
        await survivor.stop()


async def test_what_is_left_of_a_vm_that_cannot_be_adopted_is_removed(instance: Instance) -> None:
    """The record was wrong: another process of the VM runs."""
    home = instance.directory.root
    with pytest.raises(VmExitedError):
        await adopt(ProcessIdentity(pid=os.getpid(), start_time=1), vm_id="instance", directory=home)
    await instance.process.wait_exited()
    assert not home.exists()


@pytest.mark.parametrize("shared", [True, False])
async def test_memory_in_a_file_and_a_directory_with_a_comma_in_its_name(
    spec: MachineSpec, vm_home: Path, tmp_path: Path, shared: bool
) -> None:
    with (tmp_path / "memory").open("wb+") as memory:
        memory.truncate(spec.memory_mib * 1024 * 1024)
        instance = Instance.start(
            spec,
            vm_id="template",
            directory=vm_home / "with,comma",
            memory=FileMemory(fd=memory.fileno(), shared=shared),
            start=Start.INCOMING,
        )
    try:
        async with trio.open_nursery() as nursery:
            await instance.connect_qmp(nursery=nursery)
            assert (await instance.execute("query-status"))["status"] == "inmigrate"
            [device] = await instance.execute("query-memdev")
            assert device["share"] is shared
            assert (await instance.stop()).status == 0
    finally:
        await instance.kill()
