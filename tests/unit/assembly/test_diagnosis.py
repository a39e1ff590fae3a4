"""What `vmpool doctor` says of the host; of what keeps a service from starting, see the service's own tests."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest

from pool.assembly.diagnosis import examine
from pool.settings.config import parse_settings
from vmm.devices.vsock import VHOST_VSOCK
from vmm.words.findings import Finding, Verdict

HERE = os.access(VHOST_VSOCK, os.R_OK | os.W_OK)


async def finding_on(subject: str, config: str, tmp_path: Path) -> Finding:
    findings = await examine(
        parse_settings(config, source="test"),
        socket_path=tmp_path / "s.sock",
        image_directory=tmp_path,
        cache_directory=tmp_path,
    )
    [finding] = [finding for finding in findings if finding.subject == subject]
    return finding


async def test_a_host_is_not_asked_for_what_nobody_uses(tmp_path: Path) -> None:
    finding = await finding_on("vsock", "[profiles.a]\nqemu = '/nowhere'", tmp_path)
    assert (finding.verdict, finding.detail) == (Verdict.OK, 'not needed: no profile has channel = "vsock"')


@pytest.mark.skipif(HERE, reason="this host has vsock")
async def test_a_host_without_vsock_is_told_which_module_to_load(tmp_path: Path) -> None:
    finding = await finding_on("vsock", "[profiles.a]\nqemu = '/nowhere'\nchannel = 'vsock'", tmp_path)
    assert finding.verdict is Verdict.FAILURE
    assert "modprobe vhost_vsock" in finding.fix


@pytest.mark.skipif(not HERE, reason="this host has no vsock")
async def test_a_host_with_vsock_says_for_whom(tmp_path: Path) -> None:
    finding = await finding_on("vsock", "[profiles.a]\nqemu = '/nowhere'\nchannel = 'vsock'", tmp_path)
    assert (finding.verdict, finding.detail) == (Verdict.OK, f"{VHOST_VSOCK}, for a")


async def test_spans_that_cannot_be_had_keep_the_service_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pool.observe.otlp", None)
    config = "[profiles.a]\nqemu = '/nowhere'\n[tracing]\notlp_endpoint = 'http://localhost:4318'"
    finding = await finding_on("tracing", config, tmp_path)
    assert finding.verdict is Verdict.FAILURE
    assert "pip install -e '.[tracing]'" in finding.detail


async def test_more_than_the_hosts_memory_is_a_warning_because_the_service_makes_do(tmp_path: Path) -> None:
    finding = await finding_on("memory", "[profiles.a]\nqemu = '/nowhere'\nsize = 10000\nmemory_mib = 4096", tmp_path)
    assert finding.verdict is Verdict.WARNING
    assert "VMs that do not fit are not produced" in finding.detail


async def test_fewer_descriptors_than_needed_are_a_warning(tmp_path: Path) -> None:
    finding = await finding_on("limits", "[profiles.a]\nqemu = '/nowhere'\nsize = 10000", tmp_path)
    assert finding.verdict is (
        Verdict.WARNING if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 80_512 else Verdict.OK
    )
    assert "each user may have 256 of them, 1000 calls and 256 commands and streams at a time" in finding.detail


async def test_what_one_user_can_take_is_told(tmp_path: Path) -> None:
    finding = await finding_on("quotas", "[profiles.a]\nqemu = '/nowhere'\n[limits]\nleases_per_user = 7", tmp_path)
    assert (finding.verdict, finding.detail) == (
        Verdict.OK,
        "one user has at most 7 VMs, 100 waiting acquisitions (all users together 1000) and 16 watches (all users 128)",
    )


async def test_a_quota_that_is_as_good_as_none_is_a_warning_where_there_are_others(tmp_path: Path) -> None:
    config = "[profiles.a]\nqemu = '/nowhere'\n[limits]\nleases_per_user = 1000000\n"
    assert (await finding_on("quotas", config, tmp_path)).verdict is Verdict.OK
    access = "[access]\nusers = [4242]\nsocket_group = 4242\n"
    finding = await finding_on("quotas", access + config, tmp_path)
    assert (finding.verdict, finding.fix) == (Verdict.WARNING, "set limits.leases_per_user")
