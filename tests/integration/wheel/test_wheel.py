"""vmpool from a wheel, installed outside of any checkout: all of it is there, works, and goes again."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.integration.wheel.installation import CHECKOUT, Installation, build_wheel
from tests.running import service_home
from vmm.initramfs.image import GuestImage

PACKAGES = ("vmpool", "pool", "actors", "vmm")
DATA = {
    *(f"{package}/py.typed" for package in PACKAGES),
    "vmpool/wire/generated/py.typed",
    "vmpool/wire/generated/descriptors.binpb",
    "pool/default.toml",
    *(f"pool/cli/completion/vmpool.{shell}" for shell in ("bash", "fish", "zsh")),
    "pool/systemd/vmpool.service",
    "pool/systemd/sysusers.conf",
}

USER_SCRIPT = """
import sys

import trio

import vmpool


async def main() -> None:
    async with vmpool.open_client(sys.argv[1]) as client, client.lease() as vm:
        async with client.exec(vm.lease_id, ["cat"]) as command:
            await command.send_stdin(b"mine")
            await command.close_stdin()
            done = await command.collect()
    print(done.stdout.decode(), done.exit.status, vmpool.__file__)


trio.run(main)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    installation = Installation.made(tmp_path_factory.mktemp("venv"))
    installation.install(wheel)
    return installation


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A user's directory, with a file named as one of our packages."""
    (tmp_path / "pool.py").write_text("GREETING = b'mine'\n")
    return tmp_path


def vmpool(installed: Installation, elsewhere: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return installed.run(
        installed.vmpool, *arguments, cwd=elsewhere, environment={"VMPOOL_IMAGE_DIR": str(elsewhere / "image")}
    )


def test_it_holds_the_packages_their_data_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {str(file.relative_to(CHECKOUT)) for one in PACKAGES for file in (CHECKOUT / one).rglob("*.py")}
    assert names == modules | DATA


def test_each_command_is_there(installed: Installation, elsewhere: Path) -> None:
    assert vmpool(installed, elsewhere, "--version").stdout.startswith("vmpool, version ")
    load_all = "from pool.cli.main import main\nfor name in main.list_commands(None): main.get_command(None, name)"
    done = installed.run(installed.python, "-P", "-c", load_all, cwd=elsewhere)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", [("serve", "--socket", "run/s"), ("demo",)], ids=["serve", "demo"])
def test_without_an_image_it_says_how_to_build_one(
    installed: Installation, elsewhere: Path, command: tuple[str, ...]
) -> None:
    done = vmpool(installed, elsewhere, *command)
    assert done.returncode != 0
    assert f"build it with `vmpool image build --directory {elsewhere}/image`" in done.stderr


def test_the_doctor_examines_the_host(installed: Installation, elsewhere: Path) -> None:
    done = vmpool(installed, elsewhere, "doctor", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    assert "contains no image" in done.stdout


def test_benchmarks_are_of_a_checkout(installed: Installation, elsewhere: Path) -> None:
    done = vmpool(installed, elsewhere, "bench", "--list")
    assert done.returncode == 2
    assert "No such command 'bench'" in done.stderr


def test_a_unit_starts_the_command_that_is_installed(installed: Installation, elsewhere: Path) -> None:
    done = vmpool(installed, elsewhere, "install-unit", "--print", "--command", "/opt/vmpool/bin/vmpool")
    assert done.returncode == 0
    assert "\nExecStart=/opt/vmpool/bin/vmpool serve --config /etc/vmpool/vmpool.toml\n" in done.stdout


def test_the_sdk_is_that_of_the_wheel(installed: Installation, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import vmpool\nprint(vmpool.__file__)\nfrom vmpool import *")
    done = installed.run(installed.python, script, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{installed.path}/lib/")
    assert done.stdout.endswith("/site-packages/vmpool/__init__.py\n")


def test_it_goes_without_a_trace(wheel: Path, tmp_path: Path) -> None:
    installation = Installation.made(tmp_path / "venv")
    before = installation.files()
    installation.install(wheel)
    done = installation.run(installation.vmpool, "status", "--socket", "/nowhere", cwd=tmp_path)
    assert "start the service with `vmpool serve`" in done.stderr
    installation.uninstall()
    assert installation.files() == before


@pytest.mark.qemu
def test_a_service_a_vm_and_the_sdk(installed: Installation, tmp_path: Path, guest_image: GuestImage) -> None:
    config = "[profiles.default]\nsize = 1\n"
    program = (str(installed.python), "-I", "-W", "error", str(installed.vmpool))
    script = tmp_path / "script.py"
    script.write_text(USER_SCRIPT)
    with service_home(config, image_directory=guest_image.kernel.parent, program=program) as home:
        service = home.start()
        try:
            command = service.command("run", "--", "echo", "a VM")
            by_sdk = installed.run(installed.python, script, service.socket_path, cwd=tmp_path)
        finally:
            home.end(service)
        left = {path.name for path in home.path.iterdir()}
    assert (command.returncode, command.stdout, command.stderr) == (0, b"a VM\n", b"")
    assert (by_sdk.returncode, by_sdk.stderr) == (0, "")
    assert by_sdk.stdout.startswith(f"mine 0 {installed.path}/lib/")
    assert left == {"vmpool.toml", "notify", "log"}
