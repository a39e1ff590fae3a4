"""The interface of a producer kind, so that admission, settings and service do not depend on the kinds.

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
    """The arguments of every producer, in addition to its settings."""

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
    """Cost class of a production, by which productions are counted and limited."""
    has_shells: ClassVar[bool] = False
    """Whether the first part of a production can be done in advance."""
    clones: ClassVar[bool] = False
    """Whether its VMs are identical until the agent reseeds them."""

    @abc.abstractmethod
    def make(self, making: Making) -> Producer:
        """The producer. It does nothing until it is run."""

    def own_places(self) -> Mapping[str, Path]:
        """By key, the directories that no other profile may use."""
        return {}

    def place(self, profile: str, *, runtime: Path) -> Path | None:  # noqa: ARG002 - not all keep something
        """The directory of files that outlive the service; None without such files."""
        return None

    def check_place(self, place: Path, *, backend: Backend) -> None:  # noqa: B027 - idem
        """Raises VmmError if the directory cannot be used. Changes nothing."""
