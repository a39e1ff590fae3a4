"""The layers between a QEMU that its guest has taken over and the rest of the host: which of them there are here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import attrs

from vmm.errors import ConfinementError, JailError
from vmm.qemu.confinement.plan import require
from vmm.qemu.jailer.client import Jailer
from vmm.qemu.jailer.protocol import Files, Identity, Request
from vmm.words.confinement import Layer, Requirement

NAMESPACES: Final = {
    Layer.USER_NAMESPACE: "user",
    Layer.PID_NAMESPACE: "pid",
    Layer.IPC_NAMESPACE: "ipc",
    Layer.UTS_NAMESPACE: "uts",
    Layer.NETWORK_NAMESPACE: "net",
    Layer.MOUNT_NAMESPACE: "mount",
}
"""As the jailer calls them."""

_REMEDIES: Final = {
    Layer.LANDLOCK: "boot a kernel from 5.13 on with `landlock` among its security modules (lsm=)",
    Layer.SECCOMP: "install libseccomp",
}
_NAMESPACE_REMEDY: Final = (
    "let users make user namespaces (the settings kernel.unprivileged_userns_clone, user.max_user_namespaces and "
    "kernel.apparmor_restrict_unprivileged_userns), or run the service as root"
)


@attrs.frozen(kw_only=True)
class Layers:
    """What is applied, and what is not and why."""

    applied: frozenset[Layer] = frozenset()
    missing: Mapping[Layer, str] = attrs.field(factory=dict)
    """Wanted but not to be had: a sentence each."""

    @property
    def namespaces(self) -> list[str]:
        """As the jailer wants them."""
        return [name for layer, name in NAMESPACES.items() if layer in self.applied]


def find_layers(jailer: Jailer, *, wanted: Collection[Layer], identity: Identity | None, files: Files) -> Layers:
    """Tries them, all at once and then, if that fails, one after the other. Blocks for some ms, with QEMU not started.

    Raises JailError if nothing can be started at all, ConfinementError if not as that user.
    """
    everything = frozenset(wanted)
    try:
        _try(jailer, everything, identity=identity, files=files)
    except JailError as error:
        if error.stage == "jailer":
            raise
    else:
        return Layers(applied=everything)
    _try_without(jailer, identity=identity, files=files)
    applied: frozenset[Layer] = frozenset()
    missing = {}
    for layer in (layer for layer in Layer if layer in everything):
        try:
            _try(jailer, applied | {layer}, identity=identity, files=files)
        except JailError as error:
            missing[layer] = error.reason
        else:
            applied |= {layer}
    return Layers(applied=applied, missing=missing)


def require_layers(setting: Requirement, layers: Layers) -> None:
    """Raises ConfinementError if the setting asks for more than there is."""
    otherwise = f'{remedy(layers)}, or set service.confinement to "auto"'
    require(setting, layers.missing, what="service.confinement", remedy=otherwise)


def remedy(layers: Layers) -> str:
    """For the first that is missing; empty if none is."""
    return next((_REMEDIES.get(layer, _NAMESPACE_REMEDY) for layer in Layer if layer in layers.missing), "")


def _try_without(jailer: Jailer, *, identity: Identity | None, files: Files) -> None:
    """Raises JailError, ConfinementError."""
    try:
        _try(jailer, frozenset(), identity=identity, files=files)
    except JailError as error:
        if error.stage != "user" or identity is None:
            raise
        raise ConfinementError(
            what="service.qemu_user",
            reason=f"the service cannot start QEMU with uid {identity['uid']}: {error.reason}",
            remedy='in a container, give it that uid and the right to set groups, or set this to "root"',
        ) from error


def _try(jailer: Jailer, layers: frozenset[Layer], *, identity: Identity | None, files: Files) -> None:
    """Sets a process up with these, and executes nothing. Raises JailError."""
    request = Request(
        program="",
        argv=[],
        environment={},
        descriptors=[],
        readable=[],
        writable=[],
        entrances=[],
        identity=identity,
        namespaces=Layers(applied=layers).namespaces,
        files=files,
        landlock=Layer.LANDLOCK in layers,
        filter=Layer.SECCOMP in layers,
        max_file_bytes=None,
    )
    jailer.start(request, ()).wait()
