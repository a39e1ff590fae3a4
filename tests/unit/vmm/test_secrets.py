"""What callers give their guests is not shown with the records that carry it: errors and logs quote those."""

from __future__ import annotations

from typing import Final

import pytest

from vmm.fresh import FreshSources
from vmm.words.commands import CommandSpec
from vmm.words.leases import HandOutOrder, LeaseRequest, LeaseTerms
from vmm.words.preparation import PreparationReport
from vmm.words.wishes import GuestFile, Wishes

SECRET: Final = "opensesame"

WISHES: Final = Wishes(environment={"TOKEN": SECRET}, files=(GuestFile(path="/token", data=SECRET.encode()),))
TERMS: Final = LeaseTerms(lease_id="lease-1", owner_uid=1000, request=LeaseRequest(wishes=WISHES))


@pytest.mark.parametrize(
    "carrier",
    [
        WISHES,
        HandOutOrder(terms=TERMS),
        FreshSources(entropy=lambda _: SECRET.encode()).preparation(vm_id="vm-1", vm_uuid="", wishes=WISHES),
        PreparationReport(
            reseeded=True, wall_clock_ns=0, hostname="vm-1", cpus_online=1, memory_mib=256, random=SECRET.encode()
        ),
        CommandSpec(argv=["env"], environment={"TOKEN": SECRET}, stdin=SECRET.encode()),
    ],
    ids=lambda carrier: type(carrier).__name__,
)
def test_a_record_does_not_show_what_may_be_secret(carrier: object) -> None:
    assert SECRET not in repr(carrier)
