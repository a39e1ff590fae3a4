"""Hot-adding vCPUs and memory over QMP. What the guest does with them is the agent's part."""

from __future__ import annotations

from typing import Any, Final

from vmm.errors import HotplugError, QmpCommandError
from vmm.qemu.instance import Instance
from vmm.spec import MEMORY_BLOCK_MIB

_MIB: Final = 2**20


async def add_vcpus(instance: Instance, count: int) -> None:
    """Adds `count` vCPUs, lowest core first; the machine has free slots up to its maximum.

    Raises HotplugError if there are fewer slots or QEMU refuses one; what was added stays. VmExitedError.
    """
    slots = [slot for slot in await instance.execute("query-hotpluggable-cpus") if "qom-path" not in slot]
    if len(slots) < count:
        raise HotplugError(what=f"{count} vCPUs", reason=f"the machine has {len(slots)} free CPU slots")
    # QEMU lists the highest socket first; the guest numbers CPUs as they come, so both should agree.
    for slot in list(reversed(slots))[:count]:
        await _device_add(
            instance, what=f"{count} vCPUs", driver=slot["type"], device_id=_cpu_id(slot["props"]), **slot["props"]
        )


async def add_memory(instance: Instance, mib: int) -> None:
    """Adds `mib` MiB as one DIMM; a multiple of 128, the block in which Linux onlines memory.

    Its ids count the DIMMs that are there, whoever added them, so they never collide. Raises HotplugError if it is no
    multiple, over the machine's maximum, or there is no slot left; nothing is added then. VmExitedError.
    """
    what = f"{mib} MiB of memory"
    if mib <= 0 or mib % MEMORY_BLOCK_MIB:
        raise HotplugError(what=what, reason=f"memory is added in blocks of {MEMORY_BLOCK_MIB} MiB")
    taken = {device["data"].get("id") for device in await instance.execute("query-memory-devices")}
    number = next(n for n in range(len(taken) + 1) if f"dimm{n}" not in taken)
    backend = f"hotmem{number}"
    arguments: dict[str, Any] = {"qom-type": "memory-backend-ram", "id": backend, "size": mib * _MIB}
    try:
        await instance.execute("object-add", **arguments)
    except QmpCommandError as error:
        raise HotplugError(what=what, reason=error.description) from error
    try:
        await _device_add(instance, what=what, driver="pc-dimm", device_id=f"dimm{number}", memdev=backend)
    except HotplugError:
        await instance.execute("object-del", id=backend)
        raise


async def _device_add(instance: Instance, *, what: str, driver: str, device_id: str, **properties: Any) -> None:
    try:
        await instance.execute("device_add", driver=driver, id=device_id, **properties)
    except QmpCommandError as error:
        raise HotplugError(what=what, reason=error.description) from error


def _cpu_id(properties: dict[str, int]) -> str:
    return "cpu-" + "-".join(str(properties[key]) for key in sorted(properties))
