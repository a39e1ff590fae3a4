"""The life of a VM as a transition table.

    PRODUCING -> READY -> HANDING_OUT -> LEASED -> STOPPING -> GONE

A VM that is prepared in advance goes PRODUCING -> SHELL -> PRODUCING -> READY. A VM of an earlier run of the service
goes ADOPTING -> READY, or ADOPTING -> LEASED.

Every state may also go straight to STOPPING, as eviction, failure and release do; the reason that goes along says why,
so no further states are needed. A VM that a later run may adopt can also be detached: for this run it goes straight to
GONE.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class VmState(enum.Enum):
    PRODUCING = "producing"
    """A producer is making it."""
    ADOPTING = "adopting"
    """Made by an earlier run of the service; being checked, as it may have died."""
    SHELL = "shell"
    """A process without a guest, which becomes a VM when one is needed."""
    READY = "ready"
    """Paused, agent-checked, waiting to be handed out."""
    HANDING_OUT = "handing_out"
    """Being made the caller's: resumed and prepared. Dirty from here on: it never goes back to READY."""
    LEASED = "leased"
    """The caller's, until the lease ends."""
    STOPPING = "stopping"
    """Without an owner; its process is being ended and its files removed."""
    GONE = "gone"
    """Process dead, files removed; or detached."""


TRANSITIONS: Final[Mapping[VmState, frozenset[VmState]]] = {
    VmState.PRODUCING: frozenset({VmState.READY, VmState.SHELL, VmState.STOPPING}),
    VmState.ADOPTING: frozenset({VmState.READY, VmState.LEASED, VmState.STOPPING, VmState.GONE}),
    VmState.SHELL: frozenset({VmState.PRODUCING, VmState.STOPPING}),
    VmState.READY: frozenset({VmState.HANDING_OUT, VmState.STOPPING, VmState.GONE}),
    VmState.HANDING_OUT: frozenset({VmState.LEASED, VmState.STOPPING}),
    VmState.LEASED: frozenset({VmState.STOPPING, VmState.GONE}),
    VmState.STOPPING: frozenset({VmState.GONE}),
    VmState.GONE: frozenset(),
}


class IllegalTransitionError(Exception):
    """A VM was ordered into a state that cannot follow its own. Always a bug in vmpool."""

    def __init__(self, *, vm_id: str, state: VmState, target: VmState) -> None:
        allowed = ", ".join(sorted(s.value for s in TRANSITIONS[state])) or "nothing"
        super().__init__(f"{vm_id} is {state.value} and cannot become {target.value} (only: {allowed})")
        self.vm_id = vm_id
        self.state = state
        self.target = target


def check_transition(*, vm_id: str, state: VmState, target: VmState) -> None:
    """Raises IllegalTransitionError unless `target` may follow `state`."""
    if target not in TRANSITIONS[state]:
        raise IllegalTransitionError(vm_id=vm_id, state=state, target=target)
