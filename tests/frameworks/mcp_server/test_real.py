"""`vmpool mcp` with real VMs, of a service of its own."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
import trio
from mcp import Client

from tests.frameworks.mcp_server.client import Model, server
from tests.frameworks.mcp_server.files import GREETING, work_with_files
from vmm.initramfs.image import GuestImage

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(300)]


async def test_a_model_at_work(guest_image: GuestImage, vm_home: Path) -> None:
    environment = {"VMPOOL_IMAGE_DIR": str(guest_image.kernel.parent), "TMPDIR": str(vm_home)}
    async with Client(server("--standalone", "--allow-forward", environment=environment)) as client:
        there = Model(client)
        await there.call("create_vm", timeout=200.0, environment={"COLOUR": "blue"})
        await commands(there)
        await work_with_files(there)
        await processes_and_ports(there)
        await there.call("end_vm")
    with trio.fail_after(60):
        while left_in(vm_home):  # a client does not wait for its server; the service ends by itself
            await trio.sleep(0.05)


def left_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def commands(there: Model) -> None:
    done = await there.call("run_command", command="echo $COLOUR | tr a-z A-Z; echo no >&2; exit 3")
    assert (done["exit_status"], done["stdout"], done["stderr"]) == (3, "BLUE\n", "no\n")
    done = await there.call("run_command", command=["id", "-un"], user="user")
    assert done["stdout"] == "user\n"
    done = await there.call("run_command", command="sleep 1000", timeout=0.5)
    assert (done["exit_status"], done["timed_out"]) == (None, True)
    assert "No such file" in await there.refused("run_command", command=["nothing-of-this-name"])


async def processes_and_ports(there: Model) -> None:
    started = await there.call("start_process", command=["python3", "-m", "http.server", "8000"], cwd="/srv/app")
    address = await there.call("expose_port", port=8000, wait=100.0)
    assert await there.call("expose_port", port=8000) == address
    url = f"http://{address['host']}:{address['port']}/greeting.txt"

    def fetched() -> bytes:
        with urllib.request.urlopen(url, timeout=60) as reply:
            data: bytes = reply.read()
            return data

    assert await trio.to_thread.run_sync(fetched) == GREETING.encode()
    output = await there.call("process_output", process=started["process"])
    assert output["running"]
    assert "GET /greeting.txt" in output["stderr"]
    later = await there.call("process_output", process=started["process"], stderr_from=output["next_stderr"])
    assert later["stderr"] == ""
    stopped = await there.call("stop_process", process=started["process"])
    assert stopped == {"exit_status": None, "signal": 15}
    assert not (await there.call("process_output", process=started["process"], wait=5.0))["running"]
    deaf = await there.call("start_process", command="trap '' TERM; while :; do sleep 1; done")
    assert await there.call("stop_process", process=deaf["process"]) == {"exit_status": None, "signal": 9}
    assert "none with the number or tag 4711" in await there.refused("stop_process", process=4711)
