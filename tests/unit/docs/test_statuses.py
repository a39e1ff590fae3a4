"""What the schema and the guide say of statuses is what the service answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pool.rpc.errors import ERRORS, OBSTACLES, InvalidRequestError, LeaseLostError, StoppingError, TimeLimitError
from vmm.errors import AgentUnreachableError

REPOSITORY = Path(__file__).parents[3]

OF_EXEC = {
    *OBSTACLES.values(),
    *(ERRORS[kind] for kind in (InvalidRequestError, LeaseLostError, TimeLimitError)),
    *(ERRORS[kind] for kind in (AgentUnreachableError, StoppingError)),
}


@pytest.mark.parametrize("status", sorted(status.name for status in OF_EXEC))
def test_the_schema_names_every_status_of_exec(status: str) -> None:
    schema = (REPOSITORY / "proto/vmpool/v1/pool.proto").read_text()
    comment = re.findall(r"((?: *//.*\n)+) *rpc Exec\(", schema)[0]
    assert f"{status}: " in comment


def test_the_guide_says_that_a_command_may_be_too_late_as_well_as_a_vm() -> None:
    row = re.findall(r"^\| DEADLINE_EXCEEDED \| (.*) \|$", (REPOSITORY / "docs/guide.md").read_text(), re.MULTILINE)
    assert len(row) == 1
    assert "VM" in row[0]
    assert "command" in row[0]
