"""A VM of a configuration of one's own: what is asked, and what is said about where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.command import vmpool
from tests.unit.cli.scripted import Answer, ScriptedService, acquired
from vmpool.client import VmConfig, open_client
from vmpool.wire.generated.vmpool import v1 as wire

MISMATCHES = [
    wire.Mismatch(profile="default", fields=["kernel", "cpu_model"]),
    wire.Mismatch(profile="small", fields=["memory_mib"]),
]


async def test_a_configuration_of_ones_own_and_what_became_of_it(service: ScriptedService) -> None:
    service.answers["Acquire"] = lambda _: Answer((acquired(match=wire.Match(mismatches=MISMATCHES[:1])),))
    async with open_client(service.path) as client:
        vm = await client.acquire(config=VmConfig(kernel="/k", cpu_model="max"))
        async with client.lease() as plain:
            assert plain.match is None
    (request,) = await service.called("Acquire")
    assert request.config == wire.VmConfig(kernel="/k", cpu_model="max")
    assert request.profile == ""
    assert request.on_empty == wire.OnEmpty.UNSPECIFIED
    assert vm.match is not None
    assert vm.match.profile == ""
    assert [(other.profile, other.fields) for other in vm.match.mismatches] == [("default", ("kernel", "cpu_model"))]


@pytest.mark.parametrize(
    ("match", "said"),
    [
        (wire.Match(profile="small"), "vmpool: served from the pool of profile small\n"),
        (
            wire.Match(mismatches=MISMATCHES),
            (
                "vmpool: booted for this request: profile default differs in kernel, cpu_model; "
                "profile small differs in memory_mib\n"
            ),
        ),
        (wire.Match(), "vmpool: booted for this request: no pool matches\n"),
    ],
)
async def test_acquire_says_where_the_vm_came_from(service: ScriptedService, match: wire.Match, said: str) -> None:
    service.answers["Acquire"] = lambda _: Answer((acquired(match=match),))
    options = ("--kernel", "boot/k", "--initrd", "/boot/i", "--append", "quiet", "--cpu-model", "max", "--cpus", "2")
    done = await vmpool(service.path, "acquire", *options)
    assert (done.stdout, done.stderr, done.returncode) == ("lease-1\n", said, 0)
    (request,) = await service.called("Acquire")
    # Paths are the service's to open, which has another working directory.
    assert request.config == wire.VmConfig(
        kernel=f"{Path.cwd()}/boot/k", initrd="/boot/i", kernel_parameters="quiet", cpu_model="max"
    )
    assert (request.vcpus, request.profile) == (2, "")


async def test_acquire_tells_it_as_json_too(service: ScriptedService) -> None:
    service.answers["Acquire"] = lambda _: Answer((acquired(match=wire.Match(mismatches=MISMATCHES[:1])),))
    done = await vmpool(service.path, "acquire", "--json", "--cpu-model", "max")
    assert json.loads(done.stdout)["match"] == {
        "profile": "",
        "mismatches": [{"profile": "default", "fields": ["kernel", "cpu_model"]}],
    }


async def test_run_says_it_too(service: ScriptedService) -> None:
    gone = wire.ExecReply(exit=wire.ExecExit(status=7))
    reply = wire.HoldReply(acquired=acquired(match=wire.Match(profile="small")))
    service.answers |= {
        "Hold": lambda _: Answer((reply,), None),
        "Exec": lambda _: Answer((wire.ExecReply(started=wire.ExecStarted()), wire.ExecReply(stdout=b"out"), gone)),
    }
    done = await vmpool(service.path, "run", "--cpu-model", "max", "--", "true")
    assert (done.stdout, done.stderr, done.returncode) == ("out", "vmpool: served from the pool of profile small\n", 7)


async def test_nothing_is_said_of_a_profile(service: ScriptedService) -> None:
    service.answers["Acquire"] = lambda _: Answer((acquired(),))
    done = await vmpool(service.path, "acquire", "--profile", "small", "--on-empty", "fail")
    assert (done.stdout, done.stderr) == ("lease-1\n", "")
    (request,) = await service.called("Acquire")
    assert (request.profile, request.config, request.on_empty) == ("small", None, wire.OnEmpty.FAIL)


async def test_a_profile_and_a_configuration_exclude_one_another(service: ScriptedService) -> None:
    done = await vmpool(service.path, "acquire", "--profile", "small", "--cpu-model", "max")
    assert done.returncode == 2
    assert "--profile excludes --kernel" in done.stderr
    assert service.calls == []
