"""A kind of device that nothing in the house has heard of: a disk, as far as QEMU is not asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import trio

from vmm.devices.agent_port import AgentPort
from vmm.devices.device import Attachment, Bus, Device, OpenInput
from vmm.devices.options import inherited, options
from vmm.devices.usual import usual_devices
from vmm.errors import MissingFileError, SpecError
from vmm.files import content_hash
from vmm.qemu import launch as launching
from vmm.qemu.command_line import Passed, build_argv
from vmm.qemu.confinement import Confinement
from vmm.qemu.descriptors import open_passed
from vmm.qemu.directory import VmDirectory
from vmm.qemu.instance import Instance
from vmm.qemu.template.clone import start_shell
from vmm.qemu.template.fingerprint import fingerprint
from vmm.qemu.version import QemuVersion
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator

pytestmark = pytest.mark.usefixtures("leak_check")

VERSION = QemuVersion(7, 2, 22)


@attrs.frozen(kw_only=True)
class Disk(Device):
    setting: ClassVar[str] = "disk"
    bus: ClassVar[Bus] = Bus.PCI
    sockets: ClassVar[tuple[str, ...]] = ("disk.sock",)

    image: Path
    over: Path | None = None
    """What a clone's is a copy of."""

    def check(self, open_input: OpenInput) -> None:
        try:
            with open_input(self.image):
                pass
        except OSError as error:
            raise MissingFileError(field=self.setting, path=self.image, remedy="make it") from error

    def open(self, directory: Path, *, open_input: OpenInput, opened: contextlib.ExitStack) -> Attachment:
        (directory / "overlay").touch()
        base = opened.enter_context(open_input(self.over or self.image))
        overlay = opened.enter_context((directory / "overlay").open("wb")).fileno()
        return attrs.evolve(self.attached(base), writable=(overlay,))

    def attached(self, fd: int) -> Attachment:
        return Attachment(options=("-device", options("disk", file=inherited(fd))), readable=(fd,))

    def fingerprint(self) -> tuple[str, ...]:
        return (*self.attached(0).options, content_hash(self.image))

    def for_clone(self, template: Path) -> Device:
        return attrs.evolve(self, over=template / "disk")


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    for name in ("qemu", "vmlinuz", "initrd", "image"):
        (tmp_path / name).write_text(name)
    (tmp_path / "qemu").chmod(0o700)
    return MachineSpec(
        qemu=tmp_path / "qemu",
        kernel=tmp_path / "vmlinuz",
        initrd=tmp_path / "initrd",
        accelerator=Accelerator.TCG,
        devices=(*usual_devices(), Disk(image=tmp_path / "image")),
    )


@pytest.fixture
def passed(spec: MachineSpec, vm_home: Path) -> Iterator[Passed]:
    home = VmDirectory(vm_home / "vm")
    home.create()
    with contextlib.ExitStack() as opened:
        yield open_passed(spec, home, Confinement(), opened)
    home.remove()


def test_qemu_gets_its_options_and_what_these_name(spec: MachineSpec, passed: Passed) -> None:
    argv = build_argv(spec, vm_id="vm", passed=passed, boot=None)
    *_, disk = passed.devices
    assert argv[argv.index(disk.options[1]) - 1] == "-device"
    assert set(disk.readable) <= set(passed.readable)
    assert set(disk.writable) <= set(passed.writable)


def test_a_path_that_is_too_long_for_its_socket_is_told_before_anything_is_made(
    spec: MachineSpec, vm_home: Path
) -> None:
    spec = attrs.evolve(spec, devices=tuple(device for device in spec.devices if not isinstance(device, AgentPort)))
    longest = 107 - len("/disk.sock")
    directory = vm_home / ("x" * (longest + 1 - len(str(vm_home)) - 1))
    with pytest.raises(SpecError, match=r"disk\.sock would exceed"):
        Instance.start(spec, vm_id="vm", directory=directory)
    assert not directory.exists()


def test_what_it_needs_of_the_host_is_looked_at_before_anything_is_started(spec: MachineSpec, tmp_path: Path) -> None:
    launching.check_needs(spec)
    (tmp_path / "image").unlink()
    with pytest.raises(MissingFileError, match="make it"):
        launching.check_needs(spec)


async def test_other_contents_make_another_machine(spec: MachineSpec, tmp_path: Path) -> None:
    before = await fingerprint(spec, qemu_version=VERSION)
    (tmp_path / "image").write_text("other contents")
    assert await fingerprint(spec, qemu_version=VERSION) != before


async def test_a_clone_has_a_copy_of_its_own(
    spec: MachineSpec, tmp_path: Path, vm_home: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    class StartedError(Exception):
        """As far as this test goes."""

    def start(started: MachineSpec, **_: Any) -> Instance:
        assert started.devices[-1] == Disk(image=tmp_path / "image", over=tmp_path / "template" / "disk")
        raise StartedError

    monkeypatch.setattr(Instance, "start", start)
    with pytest.raises(StartedError):
        await start_shell(
            spec,
            template=Template(tmp_path / "template"),  # type: ignore[arg-type]
            vm_id="vm",
            directory=vm_home / "vm",
            nursery=nursery,
        )


@attrs.frozen
class Template:
    """As much of one as a shell is started with."""

    directory: Path

    def check(self) -> None:
        """It is as it was."""

    @property
    def sealed(self) -> Any:
        return self

    def fileno(self) -> int:
        return 99


def test_machines_that_differ_in_it_are_told_apart(spec: MachineSpec) -> None:
    without = attrs.evolve(spec, devices=usual_devices())
    assert [device.setting for device in spec.differing_devices(without)] == ["disk"]


def test_a_name_that_is_too_long_for_what_a_service_checks_at_its_start_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Export\.sockets: disk-export\.sock has more than 10 characters"):
        type("Export", (Disk,), {"sockets": ("disk-export.sock",)})
