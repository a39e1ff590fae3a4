"""What is done to a service and its VMs, and what its clients do: choices that follow from a seed. Timing does not."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator
from typing import Final

import attrs

from vmpool.client import OnEmpty

PROFILES: Final = ("template", "template", "direct")
"""Clones come faster than boots, and are asked for more often."""

SHORT_TTL_S: Final = 10.0
"""A lease whose client never heard of it ends after this."""

LONG_TTL_S: Final = 600.0


class Blow(enum.Enum):
    """One thing that is done to the service, or to one of its QEMUs."""

    IDLE = "kill an idle VM"
    LEASED = "kill a leased VM"
    UNRECORDED = "kill a VM on its way: in production, a shell, being handed out or stopped"
    SERVICE = "kill the service"
    RECOVERY = "kill the service, and the next one while it starts"
    TAKEOVER = "have another service take over"
    JAILER = "kill the process that starts QEMUs"
    STANDSTILL = "stop the service for a while, and let it go on"


_WEIGHTS: Final = {
    Blow.IDLE: 6,
    Blow.LEASED: 6,
    Blow.UNRECORDED: 4,
    Blow.SERVICE: 4,
    Blow.RECOVERY: 1,
    Blow.TAKEOVER: 1,
    Blow.JAILER: 2,
    Blow.STANDSTILL: 2,
}


@attrs.frozen(kw_only=True)
class Step:
    blow: Blow
    pause_s: float
    """Before it."""
    choice: float
    """In [0, 1): which of those that there are; for RECOVERY, how far the start comes; for STANDSTILL, how long."""


def steps(seed: int) -> Iterator[Step]:
    """Without end."""
    rng = random.Random(f"blows {seed}")
    blows, weights = zip(*_WEIGHTS.items(), strict=True)
    while True:
        (blow,) = rng.choices(blows, weights)
        yield Step(blow=blow, pause_s=rng.uniform(0.2, 2.0), choice=rng.random())


class Way(enum.Enum):
    """How a client has its lease."""

    ACQUIRE = "acquire"
    KEYED = "acquire with a key, again after a broken connection"
    HOLD = "hold with a key, again after a broken connection"
    MISTAKEN = "acquire with a wish that no guest fulfils, so there is none"
    FLOODING = "acquire, and have the guest's root flood the service until the lease has ended for that"


@attrs.frozen(kw_only=True)
class Cycle:
    """One lease of a client's."""

    profile: str
    way: Way
    on_empty: OnEmpty
    ttl_s: float
    uses: int
    """How often it is used, besides the first time."""
    pause_s: float
    """Before each use."""
    renews: bool


def cycles(seed: int, client: int) -> Iterator[Cycle]:
    """Without end. Most are as short as can be; some outlive restarts of the service."""
    rng = random.Random(f"client {seed} {client}")
    while True:
        lasting = rng.random() < 0.3
        yield Cycle(
            profile=rng.choice(PROFILES),
            way=rng.choice(list(Way)),
            on_empty=rng.choice((OnEmpty.WAIT, OnEmpty.WAIT, OnEmpty.BOOT, OnEmpty.FAIL)),
            ttl_s=LONG_TTL_S if lasting else SHORT_TTL_S,
            uses=rng.randrange(4, 16) if lasting else rng.randrange(2),
            pause_s=rng.uniform(0.2, 1.0) if lasting else 0.0,
            renews=rng.random() < 0.5,
        )
