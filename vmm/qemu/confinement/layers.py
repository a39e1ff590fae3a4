"""The layers between a QEMU that its guest has taken over and the rest of the host: which are available."""

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
"""The jailer's names."""

_REMEDIES: Final = {
    Layer.LANDLOCK: "boot Linux 5.13 or newer with `landlock` among its security modules (lsm=)",
    Layer.SECCOMP: "install libseccomp",
}
_NAMESPACE_REMEDY: Final = (
    "allow users to create user namespaces (the settings kernel.unprivileged_userns_clone, "
    "user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns), or run the service as root"
)


@attrs.frozen(kw_only=True)
class Layers:
    """The applied layers, and the missing ones with the reasons."""

    applied: frozenset[Layer] = frozenset()
    missing: Mapping[Layer, str] = attrs.field(factory=dict)
    """Wanted but not available: a sentence each."""

    @property
    def namespaces(self) -> list[str]:
        """By the jailer's names."""
        return [name for layer, name in NAMESPACES.items() if layer in self.applied]


def find_layers(jailer: Jailer, *, wanted: Collection[Layer], identity: Identity | None, files: Files) -> Layers:
    """Tries the layers, first all at once and, if that fails, one by one. Blocks for some ms; does not start QEMU.

    Raises JailError if no process can be started at all, ConfinementError if none can be started as that user.
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
    """Raises ConfinementError if the setting requires missing layers."""
    otherwise = f'{remedy(layers)}, or set service.confinement to "auto"'
    require(setting, layers.missing, what="service.confinement", remedy=otherwise)


def remedy(layers: Layers) -> str:
    """The remedy for the first missing layer; empty if none is missing."""
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
    """Sets up a process with these layers, without executing a program. Raises JailError."""
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
