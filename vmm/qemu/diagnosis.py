"""The checks of this host for QEMU, for `vmpool doctor`. Implements `vmm.backend.HostChecks`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from functools import partial

import attrs

from vmm.backend import Check
from vmm.qemu.backend import QemuBackend
from vmm.qemu.confinement.layers import remedy
from vmm.qemu.confinement.making import applied_cgroups, cgroups_for, jailed, user_for
from vmm.spec import MachineSpec
from vmm.words.confinement import ConfinementWish, Layer, Requirement
from vmm.words.findings import Finding, Verdict


@attrs.define(kw_only=True)
class QemuHostChecks:
    """Runs the checks that a service makes at its start."""

    wish: ConfinementWish
    opened: contextlib.ExitStack
    """Holds the resources of trials; its owner closes it."""
    backend: QemuBackend = attrs.field(factory=QemuBackend, init=False)
    may_try: bool = attrs.field(default=False, init=False)

    def before(self) -> Mapping[str, Check]:
        return {"QEMU's user": self._user, "confinement": self._layers}

    def after(self, specs: Mapping[str, MachineSpec]) -> Mapping[str, Check]:
        return {"cgroups": partial(self._cgroups, specs)}

    async def _user(self) -> Finding:
        decision = user_for(self.wish)
        if decision.uids is not None:
            whom = f"a uid of its own for each VM, of {decision.uids}"
        elif decision.user is not None:
            whom = f"{decision.user.name} (uid {decision.user.uid})"
        else:
            whom = f"uid {os.geteuid()}"
        fix = ""
        if decision.privileged:
            fix = 'set service.qemu_user = "auto", or to an unprivileged user'
        elif decision.shared:
            fix = f"let each VM have a uid of its own, by service.qemu_uids: {decision.shared}"
        return Finding(verdict=Verdict.WARNING if fix else Verdict.OK, detail=f"{whom}: {decision.reason}", fix=fix)

    async def _layers(self) -> Finding:
        """Tries the layers as the service does, and keeps the result for trials."""
        user = user_for(self.wish)
        confinement = self.opened.enter_context(jailed(self.wish, user=user))
        self.backend = QemuBackend(wish=self.wish, user=user, confinement=confinement)
        self.may_try = True
        layers = confinement.layers
        applied = ", ".join(layer.value for layer in Layer if layer in layers.applied) or "none"
        lacking = "".join(f"; no {layer.value}: {reason}" for layer, reason in layers.missing.items())
        return Finding(
            verdict=Verdict.WARNING if layers.missing else Verdict.OK,
            detail=f"{applied}{lacking}",
            fix=remedy(layers),
        )

    async def _cgroups(self, specs: Mapping[str, MachineSpec]) -> Finding:
        """Checks the cgroups of this process; a systemd unit has its own."""
        if self.wish.cgroups is Requirement.OFF:
            return Finding(detail="none: the configuration says off")
        plan = applied_cgroups(self.wish, specs=specs) if specs else cgroups_for(self.wish)
        applied = ", ".join(controller.value for controller in plan.places) or "no controller"
        lacking = "".join(f"; no {controller.value}: {obstacle}" for controller, obstacle in plan.missing.items())
        return Finding(
            verdict=Verdict.WARNING if plan.missing else Verdict.OK,
            detail=f"{plan.version.value if plan.version else 'none'}: {applied}{lacking}",
            fix="run the service as root, or in a systemd unit with Delegate=yes" if plan.missing else "",
        )
