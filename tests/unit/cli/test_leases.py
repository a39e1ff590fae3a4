"""Leases at the command line: several released at once, and labels."""

from __future__ import annotations

import json

from tests.unit.cli.command import vmpool
from tests.unit.rpc.served import Served


async def test_one_that_cannot_be_released_does_not_keep_the_others(served: Served) -> None:
    async with served.client() as client:
        leases = [(await client.acquire()).lease_id for _ in range(2)]
    done = await vmpool(served.path, "release", leases[0], "lease-none", "lease-nil", leases[1])
    assert (done.returncode, done.stdout) == (1, "")
    for name in ("lease-none", "lease-nil"):
        assert f"lease: there is none with the id or name '{name}'" in done.stderr
    assert served.coordinator.leases() == ()


async def test_labels_are_given_and_shown(served: Served) -> None:
    """With what a terminal would obey in them: other users' are shown to root."""
    taken = await vmpool(served.path, "acquire", "--label", "job=7", "--label", "note=a=b\x1b[2J", "--json")
    assert json.loads(taken.stdout)["labels"] == {"job": "7", "note": "a=b\x1b[2J"}
    shown = (await vmpool(served.path, "status")).stdout
    assert "job=7  note=a=b" in shown
    assert "\x1b" not in shown


async def test_a_label_without_a_value_is_named(served: Served) -> None:
    done = await vmpool(served.path, "acquire", "--label", "job")
    assert done.returncode == 2
    assert "'job' is not KEY=VALUE" in done.stderr
