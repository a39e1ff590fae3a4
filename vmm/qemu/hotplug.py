"""Hot-adding vCPUs and memory over QMP. The guest's agent brings them online."""

from __future__ import annotations

from typing import Any, Final

from vmm.capacity import Capacity
from vmm.errors import HotplugError, QmpCommandError
from vmm.qemu.instance import Instance
from vmm.words.preparation import Growth

_MIB: Final = 2**20


async def grow(instance: Instance, *, vcpus: int, memory_mib: int) -> Growth:
    """Adds up to these totals, memory rounded up to blocks, and never removes anything.

    Asks QEMU for the current state, so it works on any VM: adopted, cloned, grown before. Two calls at once would add
    twice. Raises HotplugError, with nothing added if a total exceeds the machine's maximum; if QEMU refuses a part,
    earlier parts stay, as under cancellation. Raises VmExitedError.
    """
    slots = await instance.execute("query-hotpluggable-cpus")
    free_slots = [slot for slot in slots if "qom-path" not in slot]
    memory = await instance.execute("qom-get", path="/machine", property="memory")
    dimms = [device["data"] for device in await instance.execute("query-memory-devices")]
    growth = Capacity(
        vcpus=len(slots) - len(free_slots),
        max_vcpus=len(slots),
        memory_mib=(memory["size"] + sum(dimm["size"] for dimm in dimms)) // _MIB,
        # Missing on a machine that cannot grow.
        max_memory_mib=memory.get("max-size", memory["size"]) // _MIB,
    ).growth(vcpus=vcpus, memory_mib=memory_mib)
    # QEMU lists the highest socket first; the guest numbers CPUs in the order of their addition.
    for slot in free_slots[::-1][: growth.vcpus]:
        await _add_vcpu(instance, slot)
    if growth.memory_mib:
        await _add_memory(instance, growth.memory_mib, taken={dimm.get("id") for dimm in dimms})
    return growth


async def _add_vcpu(instance: Instance, slot: dict[str, Any]) -> None:
    properties = slot["props"]
    device_id = "cpu-" + "-".join(str(properties[key]) for key in sorted(properties))
    await _device_add(instance, field="vcpus", what="a vCPU", driver=slot["type"], device_id=device_id, **properties)


async def _add_memory(instance: Instance, mib: int, *, taken: set[str | None]) -> None:
    """Adds one DIMM, with ids that are not among those taken."""
    what = f"{mib} MiB of memory"
    number = next(n for n in range(len(taken) + 1) if f"dimm{n}" not in taken)
    backend = f"hotmem{number}"
    arguments: dict[str, Any] = {"qom-type": "memory-backend-ram", "id": backend, "size": mib * _MIB}
    try:
        await instance.execute("object-add", **arguments)
    except QmpCommandError as error:
        raise HotplugError(field="memory_mib", what=what, reason=error.description) from error
    try:
        await _device_add(
            instance, field="memory_mib", what=what, driver="pc-dimm", device_id=f"dimm{number}", memdev=backend
        )
    except HotplugError:
        await instance.execute("object-del", id=backend)
        raise


async def _device_add(
    instance: Instance, *, field: str, what: str, driver: str, device_id: str, **properties: Any
) -> None:
    try:
        await instance.execute("device_add", driver=driver, id=device_id, **properties)
    except QmpCommandError as error:
        raise HotplugError(field=field, what=what, reason=error.description) from error
