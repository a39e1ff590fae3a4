"""What keeps a service from starting, each with its own message, exit code 2 and nothing left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest

from tests.integration.service.kata import kata_config
from tests.running import RunningService, vmpool_argv
from vmm.devices.vsock import VHOST_VSOCK
from vmm.initramfs.image import GuestImage

PLAIN = '[profiles.default]\naccelerator = "tcg"\n'


@attrs.frozen
class Attempt:
    """To start a service, and to have the doctor say beforehand what would become of that."""

    serve: subprocess.CompletedProcess[str]
    doctor: subprocess.CompletedProcess[str]

    @property
    def findings(self) -> list[str]:
        """The doctor's failures, as the service says them."""
        findings = json.loads(self.doctor.stdout)
        failures = [(each["detail"], each["fix"]) for each in findings if each["verdict"] == "failure"]
        return [" ".join("; ".join(filter(None, parts)).split()) for parts in failures]


def attempt(
    *options: str, config: str | None = PLAIN, home: Path, environment: dict[str, str] | None = None
) -> Attempt:
    if config is not None:
        (home / "vmpool.toml").write_text(config)
        options = ("--config", str(home / "vmpool.toml"), *options)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            vmpool_argv(*command, *options),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"VMPOOL_SOCKET": str(home / "run" / "s.sock")} | (environment or {}),
        )

    return Attempt(doctor=run("doctor", "--json"), serve=run("serve"))


@pytest.fixture
def home(vm_home: Path) -> Path:
    return vm_home


@pytest.fixture
def image(guest_image: GuestImage) -> dict[str, str]:
    return {"VMPOOL_IMAGE_DIR": str(guest_image.kernel.parent)}


def assert_refused(done: Attempt, message: str, *, home: Path) -> None:
    """By the service, which leaves nothing, and by the doctor with the same words."""
    assert message in done.serve.stderr, done.serve.stderr
    assert "Traceback" not in done.serve.stderr + done.doctor.stderr
    assert done.serve.returncode == 2
    assert not (home / "run").exists()
    assert done.doctor.returncode == 1, done.doctor.stdout + done.doctor.stderr
    told = done.serve.stderr.splitlines()[-1].removeprefix("vmpool: ")
    assert " ".join(told.split()) in done.findings  # which may have been told in several parts


def assert_misused(done: Attempt, message: str, *, home: Path) -> None:
    """What can be told of the configuration alone."""
    for each in (done.serve, done.doctor):
        assert message in each.stderr, each.stderr
        assert "Traceback" not in each.stderr
        assert each.returncode == 2
    assert not (home / "run").exists()


def test_a_missing_kernel_file(home: Path, guest_image: GuestImage) -> None:
    config = f'{PLAIN}kernel = "/nowhere/vmlinuz"\ninitrd = "{guest_image.initrd}"'
    assert_refused(attempt(config=config, home=home), "kernel: /nowhere/vmlinuz does not exist", home=home)


def test_an_image_that_was_not_built(home: Path) -> None:
    done = attempt(home=home, environment={"VMPOOL_IMAGE_DIR": str(home / "no-image")})
    assert_refused(done, "vmpool image build", home=home)


def test_an_image_that_is_damaged(home: Path, guest_image: GuestImage) -> None:
    damaged = home / "image"
    shutil.copytree(guest_image.kernel.parent, damaged, ignore=shutil.ignore_patterns("packages"))
    with (damaged / "initrd").open("r+b") as file:
        file.write(b"not an initramfs")
    done = attempt(home=home, environment={"VMPOOL_IMAGE_DIR": str(damaged)})
    shutil.rmtree(damaged)
    assert_refused(done, "differs from the file that was built", home=home)


def test_qemu_not_installed(home: Path, image: dict[str, str]) -> None:
    done = attempt(home=home, config=f'{PLAIN}qemu = "qemu-system-none"', environment=image)
    assert_refused(done, "apt-get install qemu-system-x86", home=home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts QEMU as another user")
def test_a_qemu_that_its_user_cannot_reach(home: Path, image: dict[str, str]) -> None:
    """Of all files that QEMU needs the only one whose directory matters."""
    qemu = home / "qemu"
    qemu.symlink_to("/bin/true")
    done = attempt(home=home, config=f'{PLAIN}qemu = "{qemu}"\n[service]\nqemu_user = "nobody"', environment=image)
    assert_refused(done, f"qemu: {qemu} does not exist or cannot be read; QEMU runs as nobody", home=home)


@pytest.mark.skipif(VHOST_VSOCK.exists(), reason="this host has vsock")
def test_a_host_without_vsock(home: Path, image: dict[str, str]) -> None:
    done = attempt(home=home, config=f'{PLAIN}channel = "vsock"', environment=image)
    assert_refused(done, "modprobe vhost_vsock", home=home)


def test_an_unwritable_runtime_directory(home: Path, image: dict[str, str]) -> None:
    """Root may write anywhere but in /proc."""
    done = attempt("--socket", "/proc/vmpool/s.sock", home=home, environment=image)
    assert_refused(done, "choose a writable place with --socket", home=home)


def test_a_socket_path_that_the_kernel_does_not_take(home: Path, image: dict[str, str]) -> None:
    done = attempt("--socket", str(home / ("x" * 100)), home=home, environment=image)
    assert_refused(done, "the kernel's maximum is 107", home=home)


def test_a_runtime_directory_too_long_for_the_vms_sockets(home: Path, image: dict[str, str]) -> None:
    # By one byte, for ids as they are: what the kernel takes is 107.
    rest = len("/vms/vm-000000000000/agent.sock")
    directory = home / "run" / ("x" * (108 - rest - len(str(home / "run")) - 1))
    done = attempt("--socket", str(directory / "s.sock"), home=home, environment=image)
    assert_refused(done, "too long: the paths of the VMs' sockets", home=home)


def test_a_directory_for_the_socket_that_others_can_enter(home: Path, image: dict[str, str]) -> None:
    place = home / "open"
    place.mkdir()
    place.chmod(0o755)
    done = attempt("--socket", str(place / "s.sock"), home=home, environment=image)
    assert list(place.iterdir()) == []
    place.rmdir()
    assert_refused(done, f"mode 0700: `chmod 0700 {place}`, or choose another with --socket", home=home)


def test_a_runtime_directory_in_which_others_could_replace_things(home: Path, image: dict[str, str]) -> None:
    place = home / "open"
    place.mkdir()
    place.chmod(0o777)
    config = f'{PLAIN}[service]\nruntime_directory = "{place}"'
    done = attempt(home=home, config=config, environment=image)
    assert list(place.iterdir()) == []
    place.rmdir()
    assert_refused(done, f"{place} is open to others (mode 777", home=home)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open", "open is open to others (mode 755, uid"),
        ("used", "it has other files (thesis.txt); set template_directory"),
    ],
)
def test_a_place_for_templates_that_cannot_be_one(
    home: Path, image: dict[str, str], tmp_path: Path, name: str, message: str
) -> None:
    """Told at once: booting all VMs would be a twentieth of the speed, and no error."""
    for each, mode in (("open", 0o755), ("used", 0o700)):
        (tmp_path / each).mkdir()
        (tmp_path / each).chmod(mode)
    (tmp_path / "used" / "thesis.txt").touch()
    config = f'{PLAIN}producer = "template"\ntemplate_directory = "{tmp_path / name}"'
    assert_refused(attempt(home=home, config=config, environment=image), message, home=home)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[profiles.default]\nvcpus = 0", "profiles.default.vcpus: must be >= 1: 0"),
        ("[profiles.default]\nmemory_mib = 99999999", "profiles.default.memory_mib: must be <= 1048576: 99999999"),
        ("[profiles.default]\nmemroy_mib = 256", "profiles.default: unknown key: memroy_mib"),
        ("not toml", "not TOML"),
        (
            "".join(
                f'[profiles.{name}]\nproducer = "template"\ntemplate_directory = "/dev/shm/x"\n' for name in ("a", "b")
            ),
            "profile a already uses",
        ),
    ],
)
def test_a_configuration_that_is_wrong(home: Path, config: str, message: str) -> None:
    assert_misused(attempt(home=home, config=config), message, home=home)


def test_a_kata_configuration_that_is_wrong(home: Path) -> None:
    path = home / "configuration.toml"
    path.write_text("[hypervisor.qemu]\nkernel = '/nowhere/vmlinuz'\n")
    done = attempt("--kata-config", str(path), home=home, config=None)
    assert_misused(done, "hypervisor.qemu.kernel: file /nowhere/vmlinuz does not exist", home=home)


def test_something_in_the_way_of_katas_socket(home: Path, guest_image: GuestImage) -> None:
    (home / "cache.sock").write_text("")
    kata_config(home / "configuration.toml", image=guest_image, endpoint=home / "cache.sock", number=1)
    done = attempt("--kata-config", str(home / "configuration.toml"), home=home, config=None)
    assert_refused(done, f"{home}/cache.sock already exist.  Please stop running VMCache server", home=home)


def test_two_configurations(home: Path) -> None:
    done = attempt("--kata-config", "x", home=home)
    assert_misused(done, "--config and --kata-config exclude each other", home=home)


def test_no_service_at_all(home: Path) -> None:
    done = subprocess.run(
        vmpool_argv("status", "--socket", str(home / "s.sock")), check=False, capture_output=True, text=True, timeout=60
    )
    assert "start the service with `vmpool serve`" in done.stderr
    assert done.returncode == 1


def test_a_service_that_runs_already(service: RunningService, home: Path, image: dict[str, str]) -> None:
    """The doctor says so, and that the host is fine: a service does run."""
    done = attempt("--socket", str(service.socket_path), home=home, environment=image)
    assert f"already running (pid {service.process.pid}" in done.serve.stderr
    assert done.serve.returncode == 2
    assert done.doctor.returncode == 0, done.doctor.stdout
    assert f"a service runs there (pid {service.process.pid}), and a second one would be refused" in done.doctor.stdout
    assert service.command("status").returncode == 0


def test_a_service_is_not_asked_to_go_by_one_that_cannot_take_its_place(
    service: RunningService, home: Path, image: dict[str, str]
) -> None:
    place = home / "open"
    place.mkdir()
    place.chmod(0o777)
    (home / "vmpool.toml").write_text(f'{PLAIN}[service]\nruntime_directory = "{place}"')
    options = ("--takeover", "--config", str(home / "vmpool.toml"), "--socket", str(service.socket_path))
    done = subprocess.run(
        vmpool_argv("serve", *options), check=False, capture_output=True, timeout=60, env=os.environ | image
    )
    place.rmdir()
    assert b"is open to others" in done.stderr
    assert service.command("status").returncode == 0


def test_a_runtime_directory_that_another_service_uses(
    service: RunningService, home: Path, image: dict[str, str]
) -> None:
    """Another socket in the same directory: the second service must not take the first one's VMs for orphans."""
    before = set(service.qemus())
    done = attempt("--socket", str(service.runtime / "other.sock"), home=home, environment=image)
    assert_refused(done, f"already running (pid {service.process.pid}", home=home)
    assert set(service.qemus()) == before
