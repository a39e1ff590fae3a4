"""A VM's life leads one way: PRODUCING, READY, HANDING_OUT, LEASED, STOPPING, GONE; all but GONE may go to STOPPING.

The one detour is that of a shell: PRODUCING, SHELL, PRODUCING. An adopted VM enters at READY or LEASED. Who may be
adopted may be let go: straight to GONE.
"""

from __future__ import annotations

import itertools

import pytest

from vmm.words.life import IllegalTransitionError, VmState, check_transition

WAY = [
    VmState.PRODUCING,
    VmState.READY,
    VmState.HANDING_OUT,
    VmState.LEASED,
    VmState.STOPPING,
    VmState.GONE,
]
DETOUR = (VmState.PRODUCING, VmState.SHELL, VmState.PRODUCING)
LEGAL = {
    *itertools.pairwise(WAY),
    *itertools.pairwise(DETOUR),
    *((state, VmState.STOPPING) for state in (*WAY[:4], VmState.SHELL, VmState.ADOPTING)),
    (VmState.ADOPTING, VmState.READY),
    (VmState.ADOPTING, VmState.LEASED),
    *((state, VmState.GONE) for state in (VmState.ADOPTING, VmState.READY, VmState.LEASED)),
}


@pytest.mark.parametrize(("state", "target"), sorted(LEGAL, key=str))
def test_the_way(state: VmState, target: VmState) -> None:
    check_transition(vm_id="vm-1", state=state, target=target)


@pytest.mark.parametrize(("state", "target"), sorted({*itertools.product(VmState, repeat=2)} - LEGAL, key=str))
def test_everything_else_is_a_bug_that_is_named(state: VmState, target: VmState) -> None:
    with pytest.raises(
        IllegalTransitionError, match=f"vm-1 is {state.value} and cannot become {target.value}"
    ) as caught:
        check_transition(vm_id="vm-1", state=state, target=target)
    assert (caught.value.vm_id, caught.value.state, caught.value.target) == ("vm-1", state, target)
