"""Whether a VM made of one configuration can serve a request for another: Kata's checkConfig.

Properties that can be changed afterwards, or that are always the VM's own, are ignored. All others must be equal.
"""

from __future__ import annotations

import attrs

from pool.kata.errors import ConfigMismatchError, Difference
from pool.kata.records.config import ProxyConfig, VMConfig
from pool.kata.records.gojson import differences, show
from pool.kata.records.gokinds import Generation


def check_config(base: VMConfig, new: VMConfig, *, generation: Generation = Generation.CURRENT) -> None:
    """Raises ConfigMismatchError, with Kata's text and the fields that differ.

    Empty and missing lists are equal, as in Kata. Fields of the other generation do not count, nor do unknown keys.
    """
    if base.hypervisor_type != new.hypervisor_type:
        raise _of_types("hypervisor", base.hypervisor_type, new.hypervisor_type)
    if generation is Generation.RUNTIME_1X and base.agent_type != new.agent_type:
        raise _of_types("agent", base.agent_type, new.agent_type)
    base, new = _comparable(base), _comparable(new)
    found = tuple(differences(base, new, generation=generation))
    if found:
        raise ConfigMismatchError(
            f"hypervisor config does not match, base: {show(base, generation)}. new: {show(new, generation)}",
            differences=found,
        )


def _of_types(what: str, base: str, new: str) -> ConfigMismatchError:
    return ConfigMismatchError(
        f"{what} type does not match: {base} vs. {new}",
        differences=(Difference(path=f"{what.capitalize()}Type", base=base, new=new),),
    )


def _comparable(config: VMConfig) -> VMConfig:
    return attrs.evolve(
        config,
        proxy_config=ProxyConfig(),
        hypervisor_config=attrs.evolve(
            config.hypervisor_config,
            num_vcpus=0,
            num_vcpus_f=0.0,
            memory_size=0,
            boot_to_be_template=False,
            boot_from_template=False,
            memory_path="",
            devices_state_path="",
            shared_path="",
            vm_store_path="",
            run_store_path="",
            sandbox_name="",
            sandbox_namespace="",
        ),
    )
