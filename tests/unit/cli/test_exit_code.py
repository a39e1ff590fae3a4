"""What `run` and `exec` say of a command's end, beside its exit code."""

from __future__ import annotations

import pytest

from tests.unit.cli.command import vmpool
from tests.unit.cli.scripted import Answer, ScriptedService
from vmpool.wire.generated.vmpool import v1 as wire


@pytest.mark.parametrize(
    ("ended", "code", "said"),
    [
        (wire.ExecExit(signal=9, out_of_memory=True), 137, "ran out of memory"),
        (wire.ExecExit(status=137, out_of_memory=True), 137, "ran out of memory"),
        (wire.ExecExit(signal=9), 137, ""),
        (wire.ExecExit(signal=9, timed_out=True), 124, ""),
    ],
)
async def test_a_kill_for_memory_is_told_from_another(
    service: ScriptedService, ended: wire.ExecExit, code: int, said: str
) -> None:
    replies = (wire.ExecReply(started=wire.ExecStarted()), wire.ExecReply(exit=ended))
    service.answers["Exec"] = lambda _: Answer(replies)
    done = await vmpool(service.path, "exec", "lease-1", "--", "true")
    assert (done.returncode, said in done.stderr, bool(done.stderr)) == (code, True, bool(said))
