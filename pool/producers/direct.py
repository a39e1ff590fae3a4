"""The producer kind that boots each VM."""

from __future__ import annotations

from typing import ClassVar

import attrs

from actors.direct import DirectBootProducer
from actors.producer import Producer
from pool.producers.kind import Making, ProducerSettings
from vmm.words.kinds import ProducerKind, ProductionCost


@attrs.frozen(kw_only=True)
class DirectSettings(ProducerSettings):
    kind: ClassVar[ProducerKind] = ProducerKind.DIRECT
    cost: ClassVar[ProductionCost] = ProductionCost.BOOT

    def make(self, making: Making) -> Producer:
        return DirectBootProducer(
            resolve=making.resolve,
            launch=making.backend.launch,
            vms_directory=making.vms_directory,
            boot_timeout_s=making.boot_timeout_s,
            on_generation=making.on_generation,
        )
