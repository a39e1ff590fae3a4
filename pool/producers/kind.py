"""What a kind of producer says of itself, so that neither admission nor settings nor the service know the kinds.

A new kind is a module beside this one, registered in `registry`, whose keys are then keys of a profile.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import attrs

from actors.machine import ResolveMachine
from actors.producer import Producer
from vmm.backend import Backend
from vmm.words.kinds import ProducerKind, ProductionCost


@attrs.frozen(kw_only=True)
class Making:
    """What every producer is made from beside its settings."""

    profile: str
    resolve: ResolveMachine
    backend: Backend
    vms_directory: Path
    runtime: Path
    """The service's runtime directory."""
    new_vm_id: Callable[[], str]
    boot_timeout_s: float
    on_generation: Callable[[str], None]


class ProducerSettings(abc.ABC):
    """The settings of one kind, a frozen record whose fields are keys of the `[profiles.NAME]` table."""

    kind: ClassVar[ProducerKind]
    cost: ClassVar[ProductionCost]
    """What a production costs the host, by which productions are counted and limited."""
    has_shells: ClassVar[bool] = False
    """Its productions have a first half that can be done ahead of time."""
    clones: ClassVar[bool] = False
    """Its VMs are alike until somebody in the guest reseeds them."""

    @abc.abstractmethod
    def make(self, making: Making) -> Producer:
        """The producer. It does nothing until it is run."""

    def own_places(self) -> Mapping[str, Path]:
        """By key, the places that it must have for itself; another profile with the same is refused."""
        return {}

    def place(self, profile: str, *, runtime: Path) -> Path | None:  # noqa: ARG002 - not all keep something
        """Where it keeps what outlives it; None if it keeps nothing."""
        return None

    def check_place(self, place: Path, *, backend: Backend) -> None:  # noqa: B027 - idem
        """Raises VmmError if that can never be kept there. Changes nothing."""
