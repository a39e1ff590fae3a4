"""What a guest chose is said by the command without being obeyed by the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from pool.cli.options import failure
from pool.cli.output import quoted
from tests.running import vmpool_argv
from tests.unit.cli.command import vmpool
from tests.unit.cli.scripted import Answer, ScriptedService
from vmpool.wire.generated.vmpool import v1 as wire

HOSTILE = "guest: \x1b]0;title\x07\x9b2J\rover\u202e\nvm  vm-9  default  gone"
SHOWN = r"guest: \x1b]0;title\x07\x9b2J\rover\u202e\nvm  vm-9  default  gone"


@pytest.fixture
def hostile(service: ScriptedService) -> ScriptedService:
    """A service whose guests chose what went wrong."""
    profile = wire.ProfileStatus(
        name="default", producer=wire.ProducerStatus(), counters=wire.PoolCounters(), last_error=HOSTILE
    )
    vm = wire.VmChange(vm_id="vm-1", profile="default", state=wire.VmState.STOPPING, detail=HOSTILE)
    service.answers["Status"] = lambda _: Answer((wire.StatusReply(profiles=[profile]),))
    service.answers["Watch"] = lambda _: Answer(
        (wire.WatchReply(snapshot=wire.Snapshot(profiles=[profile], vms=[vm])), wire.WatchReply(vm=vm))
    )
    return service


def assert_no_orders(said: str) -> None:
    assert all(line.isprintable() for line in said.split("\n")), said


async def test_by_status(hostile: ScriptedService) -> None:
    said = (await vmpool(hostile.path, "status")).stdout
    assert f"default: last error: {SHOWN}\n" in said
    assert_no_orders(said)


async def test_by_watch(hostile: ScriptedService) -> None:
    said = (await vmpool(hostile.path, "watch")).stdout
    assert said.count(f"vm  vm-1  default  stopping  {SHOWN}\n") == 2
    assert_no_orders(said)


async def test_json_has_it_as_it_is(hostile: ScriptedService) -> None:
    said = (await vmpool(hostile.path, "status", "--json")).stdout
    assert json.loads(said)["profiles"][0]["last_error"] == HOSTILE
    assert_no_orders(said)


LOSING = f"""
import logging, sys
from pathlib import Path
from pool.cli.connection import call

async def lose(client):
    logging.getLogger("vmpool.client").warning("lease %s is lost: %s", "lease-1", {HOSTILE!a})

call(Path(sys.argv[1]), lose)
"""


async def test_by_what_the_client_has_to_say_meanwhile(service: ScriptedService) -> None:
    """A lease that is lost is told of at once, with the reason."""
    argv = [sys.executable, "-c", LOSING, str(service.path)]
    said = (await trio.run_process(argv, capture_stderr=True)).stderr.decode()
    assert said.startswith(r"lease lease-1 is lost: guest: \x1b]0;title\x07")
    assert_no_orders(said)


def test_by_an_error_which_may_have_several_lines(capsys: pytest.CaptureFixture[str]) -> None:
    failure("the agent says \x1b[2J\nand more", code=1)
    assert capsys.readouterr().err == "vmpool: the agent says \\x1b[2J\nand more\n"


def test_by_another_vmpool_whose_words_are_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    """Once is enough to say who says it."""
    said = quoted("vmpool: kernel: /k does not exist\nvmpool: and more\n")
    failure(f"the service did not start:\n{said}", code=1)
    assert capsys.readouterr().err == "vmpool: the service did not start:\nkernel: /k does not exist\nand more\n"


def test_by_a_demo_whose_service_does_not_start(vm_home: Path, leak_check: None) -> None:
    done = subprocess.run(
        vmpool_argv("demo"),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"VMPOOL_IMAGE_DIR": "/nowhere"},
        timeout=60,
    )
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == "vmpool: the service did not start:"
    assert second.startswith("guest image (load): /nowhere contains no image; build it with")
