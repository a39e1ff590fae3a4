"""The producer kind that clones VMs from a template; see docs/templates.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import attrs

from actors.producer import Producer
from actors.template import TemplateProducer
from pool.host.paths import template_directory
from pool.producers.kind import Making, ProducerSettings
from vmm.backend import Backend
from vmm.words.kinds import ProducerKind, ProductionCost


@attrs.frozen(kw_only=True)
class TemplateSettings(ProducerSettings):
    kind: ClassVar[ProducerKind] = ProducerKind.TEMPLATE
    cost: ClassVar[ProductionCost] = ProductionCost.CLONE
    has_shells: ClassVar[bool] = True
    clones: ClassVar[bool] = True

    template_directory: Path | None = None
    """None: see `pool.host.paths.template_directory`."""
    template_fallback: bool = True
    """Boot directly while no template is available."""
    template_fetch_only: bool = False
    """Use an existing template, never build one."""

    def make(self, making: Making) -> Producer:
        place = self.place(making.profile, runtime=making.runtime)
        return TemplateProducer(
            resolve=making.resolve,
            backend=making.backend.templates(place),
            launch=making.backend.launch,
            vms_directory=making.vms_directory,
            new_vm_id=making.new_vm_id,
            boot_timeout_s=making.boot_timeout_s,
            fallback=self.template_fallback,
            fetch_only=self.template_fetch_only,
            on_generation=making.on_generation,
        )

    def own_places(self) -> Mapping[str, Path]:
        return {} if self.template_directory is None else {"template_directory": self.template_directory}

    def place(self, profile: str, *, runtime: Path) -> Path:
        return (self.template_directory or template_directory(profile, runtime=runtime)).absolute()

    def check_place(self, place: Path, *, backend: Backend) -> None:
        backend.templates(place).check_place(writes=not self.template_fetch_only)
