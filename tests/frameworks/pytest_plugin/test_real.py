"""The plugin with real VMs, of a service that the session starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.pytest_plugin.suite import Suite, suite
from vmm.initramfs.image import GuestImage

pytest_plugins = "pytester"

__all__ = ["suite"]

pytestmark = pytest.mark.qemu

_TESTS = """
    import pathlib
    import pytest

    @pytest.mark.parametrize("number", range(2))
    def test_a_machine(vm, vmpool_service, number):
        vm.files.write("/srv/hello.txt", f"hello {number}")
        assert vm.run("cat /srv/*").stdout == f"hello {number}"
        pathlib.Path(f"socket-{number}").write_text(str(vmpool_service.socket_path))
    """


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_session_starts_one_service_of_its_own_and_ends_it(
    suite: Suite, guest_image: GuestImage, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv("VMPOOL_IMAGE_DIR", str(guest_image.kernel.parent))
    options = ["--vmpool-standalone", "--vmpool-timeout=200", *([f"-n{workers}"] if workers else [])]
    done = suite.run(_TESTS, *options, plugins=("xdist.plugin",))
    done.assert_outcomes(passed=2)
    (socket,) = {Path(path.read_text()) for path in suite.pytester.path.glob("socket-*")}
    assert not socket.parent.exists()
