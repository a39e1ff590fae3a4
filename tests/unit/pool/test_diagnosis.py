"""What `vmpool doctor` says of vsock, on hosts that have it and on hosts that do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pool.config import parse_settings
from pool.diagnosis import Finding, Verdict, examine
from vmm.qemu.vsock import VHOST_VSOCK

HERE = os.access(VHOST_VSOCK, os.R_OK | os.W_OK)


async def finding_on_vsock(config: str, tmp_path: Path) -> Finding:
    findings = await examine(
        parse_settings(config, source="test"),
        socket_path=tmp_path / "s.sock",
        image_directory=tmp_path,
        cache_directory=tmp_path,
    )
    [finding] = [finding for finding in findings if finding.subject == "vsock"]
    return finding


async def test_a_host_is_not_asked_for_what_nobody_uses(tmp_path: Path) -> None:
    finding = await finding_on_vsock("[profiles.a]\nqemu = '/nowhere'", tmp_path)
    assert (finding.verdict, finding.detail) == (Verdict.OK, 'not needed: no profile has channel = "vsock"')


@pytest.mark.skipif(HERE, reason="this host has vsock")
async def test_a_host_without_vsock_is_told_which_module_to_load(tmp_path: Path) -> None:
    finding = await finding_on_vsock("[profiles.a]\nqemu = '/nowhere'\nchannel = 'vsock'", tmp_path)
    assert finding.verdict is Verdict.FAILURE
    assert "modprobe vhost_vsock" in finding.fix


@pytest.mark.skipif(not HERE, reason="this host has no vsock")
async def test_a_host_with_vsock_says_for_whom(tmp_path: Path) -> None:
    finding = await finding_on_vsock("[profiles.a]\nqemu = '/nowhere'\nchannel = 'vsock'", tmp_path)
    assert (finding.verdict, finding.detail) == (Verdict.OK, f"{VHOST_VSOCK}, for a")
