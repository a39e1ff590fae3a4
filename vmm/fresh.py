"""The values that every hand-out gives a guest anew: entropy, the time, a name and ids."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import Final

import attrs

from vmm.words.preparation import RESEED_BYTES, Preparation
from vmm.words.wishes import Wishes

_NOTHING: Final = Wishes()


@attrs.frozen(kw_only=True)
class FreshSources:
    """The sources of the values; replaceable in tests."""

    entropy: Callable[[int], bytes] = os.urandom
    clock_ns: Callable[[], int] = time.time_ns
    new_machine_id: Callable[[], str] = lambda: uuid.uuid4().hex

    def reseeding(self, *, vm_uuid: str) -> Preparation:
        """The minimum: random numbers, the time, and the UUID, which a clone's firmware does not know."""
        return Preparation(entropy=self.entropy(RESEED_BYTES), wall_clock_ns=self.clock_ns(), vm_uuid=vm_uuid)

    def preparation(self, *, vm_id: str, vm_uuid: str, wishes: Wishes = _NOTHING, random_bytes: int = 0) -> Preparation:
        """The request of every hand-out, with its caller's wishes. A rehearsal sends the same without wishes: the first
        request pages in and, under TCG, translates code, which would cost the caller 15 ms.
        """
        return attrs.evolve(
            self.reseeding(vm_uuid=vm_uuid),
            hostname=wishes.hostname or vm_id,
            machine_id=self.new_machine_id(),
            environment=wishes.environment,
            vcpus=wishes.vcpus,
            memory_mib=wishes.memory_mib,
            random_bytes=random_bytes,
        )


FRESH: Final = FreshSources()
