"""From a profile's settings to its producer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from actors.direct import DirectBootProducer
from actors.producer import Launch, Producer
from actors.template import TemplateProducer
from pool.core.coordinator import new_id
from pool.core.machines import MachineResolver
from pool.host.paths import template_directory
from pool.settings.config import ProfileSettings
from vmm.backend import Backend
from vmm.words.kinds import ProducerKind


def make_producer(
    name: str,
    profile: ProfileSettings,
    resolver: MachineResolver,
    *,
    launch: Launch,
    runtime: Path,
    vms_directory: Path,
    on_generation: Callable[[str], None],
) -> Producer:
    """The producer that the profile asks for. It does nothing until it is run."""
    match profile.producer:
        case ProducerKind.DIRECT:
            return DirectBootProducer(
                resolve=resolver.resolve,
                launch=launch,
                vms_directory=vms_directory,
                boot_timeout_s=profile.boot_timeout_s,
                on_generation=on_generation,
            )
        case ProducerKind.TEMPLATE:
            return TemplateProducer(
                resolve=resolver.resolve,
                backend=resolver.backend.templates(_place(name, profile, runtime=runtime)),
                launch=launch,
                vms_directory=vms_directory,
                new_vm_id=lambda: new_id("vm"),
                boot_timeout_s=profile.boot_timeout_s,
                fallback=profile.template_fallback,
                fetch_only=profile.template_fetch_only,
                on_generation=on_generation,
            )


def check_template_place(name: str, profile: ProfileSettings, *, runtime: Path, backend: Backend) -> Path:
    """Where the profile's template is, or will be. Raises TemplateError if it can never be there. Changes nothing."""
    place = _place(name, profile, runtime=runtime)
    backend.templates(place).check_place(writes=not profile.template_fetch_only)
    return place


def _place(name: str, profile: ProfileSettings, *, runtime: Path) -> Path:
    return (profile.template_directory or template_directory(name, runtime=runtime)).absolute()
