"""How much is added to a machine, for any sizes."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.capacity import Capacity
from vmm.errors import HotplugError
from vmm.words.machines import MEMORY_BLOCK_MIB


@st.composite
def capacities(draw: st.DrawFn) -> Capacity:
    vcpus, memory_mib = draw(st.integers(1, 8)), draw(st.integers(64, 4096))
    return Capacity(
        vcpus=vcpus,
        max_vcpus=draw(st.integers(vcpus, 16)),
        memory_mib=memory_mib,
        max_memory_mib=draw(st.integers(memory_mib, 8192)),
    )


@given(capacity=capacities(), vcpus=st.integers(-1, 20), memory_mib=st.integers(-1, 10000))
def test_growth_is_the_least_that_suffices_and_stays_within_the_maximum(
    capacity: Capacity, vcpus: int, memory_mib: int
) -> None:
    missing_mib = max(0, memory_mib - capacity.memory_mib)
    rounded_mib = capacity.memory_mib + -(-missing_mib // MEMORY_BLOCK_MIB) * MEMORY_BLOCK_MIB
    if vcpus > capacity.max_vcpus or rounded_mib > capacity.max_memory_mib:
        with pytest.raises(HotplugError, match="maximum"):
            capacity.growth(vcpus=vcpus, memory_mib=memory_mib)
        return
    growth = capacity.growth(vcpus=vcpus, memory_mib=memory_mib)
    grown = capacity.grown(growth)
    assert grown.vcpus == max(vcpus, capacity.vcpus)
    assert 0 <= grown.memory_mib - max(memory_mib, capacity.memory_mib) < MEMORY_BLOCK_MIB
    assert growth.memory_mib % MEMORY_BLOCK_MIB == 0
    assert attrs.evolve(grown, vcpus=capacity.vcpus, memory_mib=capacity.memory_mib) == capacity
    again = grown.growth(vcpus=vcpus, memory_mib=memory_mib)
    assert (again.vcpus, again.memory_mib) == (0, 0)
