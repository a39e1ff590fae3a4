"""Proof of uniqueness: no two hand-outs may show the same random bytes or the same identity."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

import attrs

from vmm.errors import NotUniqueError
from vmm.words.preparation import PreparationReport

RANDOM_BYTES: Final = 32
"""Two of 2**256 values are never equal by chance."""

REMEMBERED: Final = 100_000
"""Sightings that are kept, some 200 bytes each. Clones repeat their siblings, not VMs of weeks ago."""


@attrs.define(eq=False)
class Witness:
    """Remembers the values of VMs that were handed out. One for all pools: a repetition across pools counts too."""

    random_bytes: int = RANDOM_BYTES
    _seen: OrderedDict[bytes, str] = attrs.field(factory=OrderedDict)
    """Digest of a sighting to its VM's id."""

    def check(self, *, vm_id: str, report: PreparationReport, hostname_chosen: bool = False) -> None:
        """Records a VM's values. Raises NotUniqueError if another VM had one of them, or if this VM has none.

        `hostname_chosen`: the caller chose the hostname and may repeat another VM's, so it is not compared.
        """
        if len(report.random) != self.random_bytes:
            raise NotUniqueError(vm_id=vm_id, what="random bytes", other="no VM: it did not return any")
        sightings = {
            "random bytes": report.random,
            "hostname": b"" if hostname_chosen else report.hostname.encode(),
            "machine-id": report.machine_id.encode(),
            "VM UUID": report.vm_uuid.encode(),
        }
        for what, value in sightings.items():
            if not value:
                continue  # the guest has none, or it does not count
            # Hashed, so that the guest's random bytes cannot be read from the service's memory.
            digest = hashlib.blake2b(value, digest_size=16, person=what.encode()[:16]).digest()
            other = self._seen.setdefault(digest, vm_id)
            if other != vm_id:
                raise NotUniqueError(vm_id=vm_id, what=what, other=other)
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
