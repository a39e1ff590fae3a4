"""What keeps a service from starting, each with its own message, exit code 2 and nothing left."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.running import RunningService, vmpool_argv
from vmm.guest.image import GuestImage


def serve(
    *options: str, config: str = "[profiles.default]", home: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    (home / "vmpool.toml").write_text(config)
    return subprocess.run(
        vmpool_argv("serve", "--config", str(home / "vmpool.toml"), *options),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"VMPOOL_SOCKET": str(home / "run" / "s.sock")} | (environment or {}),
    )


@pytest.fixture
def home(vm_home: Path) -> Path:
    return vm_home


def assert_refused(done: subprocess.CompletedProcess[str], message: str, *, home: Path) -> None:
    assert message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    assert not (home / "run").exists()


def test_a_missing_kernel_file(home: Path, guest_image: GuestImage) -> None:
    config = f'[profiles.default]\nkernel = "/nowhere/vmlinuz"\ninitrd = "{guest_image.initrd}"'
    assert_refused(serve(config=config, home=home), "kernel: /nowhere/vmlinuz does not exist", home=home)


def test_an_image_that_was_not_built(home: Path) -> None:
    done = serve(home=home, environment={"VMPOOL_IMAGE_DIR": str(home / "no-image")})
    assert_refused(done, "vmpool image build", home=home)


def test_qemu_not_installed(home: Path, guest_image: GuestImage) -> None:
    done = serve(
        home=home,
        config='[profiles.default]\nqemu = "qemu-system-none"',
        environment={"VMPOOL_IMAGE_DIR": str(guest_image.kernel.parent)},
    )
    assert_refused(done, "apt-get install qemu-system-x86", home=home)


def test_an_unwritable_runtime_directory(home: Path, guest_image: GuestImage) -> None:
    """Root may write anywhere but in /proc."""
    done = serve(
        "--socket",
        "/proc/vmpool/s.sock",
        home=home,
        environment={"VMPOOL_IMAGE_DIR": str(guest_image.kernel.parent)},
    )
    assert_refused(done, "choose a writable place with --socket", home=home)


def test_a_socket_path_that_the_kernel_does_not_take(home: Path, guest_image: GuestImage) -> None:
    done = serve(
        "--socket",
        str(home / ("x" * 100)),
        home=home,
        environment={"VMPOOL_IMAGE_DIR": str(guest_image.kernel.parent)},
    )
    assert_refused(done, "the kernel takes 107", home=home)


def test_a_runtime_directory_too_long_for_the_vms_sockets(home: Path, guest_image: GuestImage) -> None:
    # By one byte, for ids as they are: what the kernel takes is 107.
    rest = len("/vms/vm-000000000000/agent.sock")
    directory = home / "run" / ("x" * (108 - rest - len(str(home / "run")) - 1))
    done = serve(
        "--socket",
        str(directory / "s.sock"),
        home=home,
        environment={"VMPOOL_IMAGE_DIR": str(guest_image.kernel.parent)},
    )
    assert "too long: the VMs' sockets" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[profiles.default]\nvcpus = 0", "profiles.default.vcpus: must be >= 1: 0"),
        ("[profiles.default]\nmemory_mib = 99999999", "profiles.default.memory_mib: must be <= 1048576: 99999999"),
        ("[profiles.default]\nmemroy_mib = 256", "profiles.default: unknown key: memroy_mib"),
        ("not toml", "not TOML"),
    ],
)
def test_a_configuration_that_is_wrong(home: Path, config: str, message: str) -> None:
    assert_refused(serve(home=home, config=config), message, home=home)


def test_a_kata_configuration_that_is_wrong(home: Path) -> None:
    (home / "configuration.toml").write_text("[hypervisor.qemu]\nkernel = '/nowhere/vmlinuz'\n")
    done = subprocess.run(
        vmpool_argv(
            "serve", "--kata-config", str(home / "configuration.toml"), "--socket", str(home / "run" / "s.sock")
        ),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert_refused(done, "hypervisor.qemu.kernel: file /nowhere/vmlinuz does not exist", home=home)


def test_two_configurations(home: Path) -> None:
    done = serve("--kata-config", "x", home=home)
    assert_refused(done, "--config and --kata-config exclude each other", home=home)


def test_a_service_that_runs_already(service: RunningService, home: Path, guest_image: GuestImage) -> None:
    done = serve(
        "--socket",
        str(service.socket_path),
        home=home,
        environment={"VMPOOL_IMAGE_DIR": str(guest_image.kernel.parent)},
    )
    assert_refused(done, f"already running (pid {service.process.pid}", home=home)
    assert service.command("status").returncode == 0


def test_no_service_at_all(home: Path) -> None:
    done = subprocess.run(
        vmpool_argv("status", "--socket", str(home / "s.sock")), check=False, capture_output=True, text=True, timeout=60
    )
    assert "start the service with `vmpool serve`" in done.stderr
    assert done.returncode == 1


def test_a_runtime_directory_that_another_service_uses(
    service: RunningService, home: Path, guest_image: GuestImage
) -> None:
    """Another socket in the same directory: the second service must not take the first one's VMs for orphans."""
    before = set(service.qemus())
    done = serve(
        "--socket",
        str(service.runtime / "other.sock"),
        home=home,
        environment={"VMPOOL_IMAGE_DIR": str(guest_image.kernel.parent)},
    )
    assert_refused(done, f"already running (pid {service.process.pid}", home=home)
    assert set(service.qemus()) == before


def test_two_profiles_with_one_template_directory(home: Path) -> None:
    config = "".join(
        f'[profiles.{name}]\nproducer = "template"\ntemplate_directory = "/dev/shm/x"\n' for name in ("a", "b")
    )
    assert_refused(serve(home=home, config=config), "profile a has it already", home=home)


def test_an_image_that_is_damaged(home: Path, guest_image: GuestImage) -> None:
    image = home / "image"
    shutil.copytree(guest_image.kernel.parent, image, ignore=shutil.ignore_patterns("packages"))
    with (image / "initrd").open("r+b") as file:
        file.write(b"not an initramfs")
    done = serve(home=home, environment={"VMPOOL_IMAGE_DIR": str(image)})
    shutil.rmtree(image)
    assert_refused(done, "is not what was built", home=home)
