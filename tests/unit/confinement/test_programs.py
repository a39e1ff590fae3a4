"""What of the host's files a QEMU sees: what it needs, and nothing that is somebody's."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmm.qemu.confinement.programs import DEVICES, SYSTEM, files_for
from vmm.words.machines import Accelerator


def shown(program: str, environment: dict[str, str] | None = None) -> set[str]:
    files = files_for(Path(program), accelerator=Accelerator.TCG, environment=environment or {})
    return set(files["programs"]) - set(SYSTEM)


def parts_of(prefix: str) -> set[str]:
    return {f"{prefix}/{part}" for part in ("lib", "lib64", "libexec", "share/qemu", "share/seabios")}


def test_the_distributions_has_all_in_usr() -> None:
    assert all(path.startswith("/usr") for path in shown("/usr/bin/qemu-system-x86_64"))


@pytest.mark.parametrize(
    ("program", "directories"),
    [
        ("/opt/qemu/bin/qemu", {"/opt/qemu/bin", "/opt/qemu"}),
        ("/srv/build/qemu", {"/srv/build"}),
        ("/home/me/qemu/build/qemu", {"/home/me/qemu/build"}),
        ("/home/me/qemu/bin/qemu", {"/home/me/qemu/bin", "/home/me/qemu"}),
        ("/home/me/bin/qemu", {"/home/me/bin", *parts_of("/home/me")}),
        ("/var/home/me/bin/qemu", {"/var/home/me/bin", *parts_of("/var/home/me")}),
        ("/home/me/.local/bin/qemu", {"/home/me/.local/bin", *parts_of("/home/me/.local")}),
        ("/home/me/.local/qemu", set()),
        ("/home/me/qemu", set()),
        ("/opt/qemu", set()),
        ("/qemu", set()),
        ("/bin-of-mine/bin/qemu", {"/bin-of-mine/bin", *parts_of("/bin-of-mine")}),
        ("/nix/store/abc-qemu/bin/qemu", {"/nix/store"}),
    ],
)
def test_another_has_what_is_beside_it_but_no_home(program: str, directories: set[str]) -> None:
    assert shown(program) - {program} == directories


def test_so_has_the_services_own_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/var/lib/vmpool")
    assert shown("/var/lib/vmpool/qemu") == {"/var/lib/vmpool/qemu"}


def test_places_that_the_environment_names_are_shown() -> None:
    environment = {"LD_LIBRARY_PATH": "/opt/a:relative::/", "QEMU_MODULE_DIR": "/opt/b"}
    assert shown("/usr/bin/qemu", environment) - {"/usr/bin/qemu", "/usr/bin"} == {"/opt/a", "/opt/b"}


def test_kvm_is_a_device_of_who_uses_it() -> None:
    for accelerator, devices in ((Accelerator.TCG, [*DEVICES]), (Accelerator.KVM, [*DEVICES, "/dev/kvm"])):
        assert files_for(Path("/usr/bin/qemu"), accelerator=accelerator, environment={})["devices"] == devices
