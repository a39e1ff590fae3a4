"""Kata's judgement of a configuration. Names begin with the case of Kata's own tests that they cover."""

from __future__ import annotations

import attrs
import pytest

from pool.kata.errors import InvalidConfigError
from pool.kata.records.config import FactoryConfig, FactoryKind, VMConfig
from pool.kata.records.gokinds import Generation
from pool.kata.records.hypervisor_config import HypervisorConfig
from tests.unit.kata.configs import vm_config

CURRENT, RUNTIME_1X = Generation.CURRENT, Generation.RUNTIME_1X


def refusal(config: VMConfig, generation: Generation = CURRENT) -> str:
    with pytest.raises(InvalidConfigError) as error:
        config.valid(generation)
    return str(error.value)


@pytest.mark.parametrize("fetch_only", [True, False])
def test_f1_an_empty_config_makes_no_factory(fetch_only: bool) -> None:
    with pytest.raises(InvalidConfigError, match=r"^Missing kernel path$"):
        FactoryConfig().choose(fetch_only=fetch_only)


def test_f2_a_hypervisor_type_alone_makes_no_factory() -> None:
    with pytest.raises(InvalidConfigError, match=r"^Missing kernel path$"):
        FactoryConfig(vm_config=VMConfig(hypervisor_type="mock")).choose(fetch_only=False)


@pytest.mark.parametrize("fetch_only", [True, False])
def test_f3_kernel_and_initrd_make_a_direct_factory(fetch_only: bool) -> None:
    assert FactoryConfig(vm_config=vm_config()).choose(fetch_only=fetch_only) is FactoryKind.DIRECT


def test_f5_and_f6_a_cache_is_made_around_either_producer_and_cannot_be_fetched() -> None:
    for template, kind in ((True, FactoryKind.TEMPLATE), (False, FactoryKind.DIRECT)):
        config = FactoryConfig(template=template, cache=10, vm_config=vm_config())
        assert config.choose(fetch_only=False) is kind
        with pytest.raises(InvalidConfigError, match=r"^cache factory does not support fetch$"):
            config.choose(fetch_only=True)


def test_f18_files_are_not_looked_for() -> None:
    config = FactoryConfig(vm_config=vm_config(kernel_path="foo", image_path="bar", initrd_path=""))
    assert config.choose(fetch_only=False) is FactoryKind.DIRECT
    assert config.vm_config.hypervisor_config.image_path == "bar"


def test_f20_a_cache_of_one_cannot_be_fetched_either() -> None:
    with pytest.raises(InvalidConfigError, match=r"^cache factory does not support fetch$"):
        FactoryConfig(cache=1, vm_config=vm_config()).choose(fetch_only=True)


def test_a_cache_without_vms_of_its_own_is_a_client() -> None:
    config = FactoryConfig(vm_cache=True, template=True, vm_config=vm_config())
    assert config.choose(fetch_only=False) is FactoryKind.CACHE_CLIENT
    assert attrs.evolve(config, cache=1).choose(fetch_only=False) is FactoryKind.TEMPLATE


def test_f22_runtime_1x_wants_the_types_of_agent_and_proxy() -> None:
    with pytest.raises(InvalidConfigError, match=r"^Missing agent type$"):
        vm_config().check_request()
    with pytest.raises(InvalidConfigError, match=r"^Missing proxy type$"):
        attrs.evolve(vm_config(), agent_type="kata").check_request()
    attrs.evolve(vm_config(), agent_type="kata", proxy_type="noProxy").check_request()


def test_v1_an_empty_config_makes_no_vm() -> None:
    assert refusal(VMConfig()) == "Missing kernel path"


def test_g4_no_kernel() -> None:
    assert refusal(vm_config(kernel_path="")) == "Missing kernel path"


@pytest.mark.parametrize("generation", Generation)
def test_g5_neither_image_nor_initrd(generation: Generation) -> None:
    assert refusal(vm_config(initrd_path=""), generation) == "Missing image and initrd path"


def test_g6_image_and_initrd_are_too_much_for_current_kata_only() -> None:
    both = vm_config(image_path="/img")
    assert refusal(both) == "Image and initrd path cannot be both set"
    both.valid(RUNTIME_1X)


def test_g7_the_hypervisor_may_be_unnamed() -> None:
    assert vm_config(hypervisor_path="").valid().hypervisor_config.hypervisor_path == ""


def test_v3_and_g8_what_templates_need() -> None:
    both = vm_config(boot_to_be_template=True, boot_from_template=True, memory_path="m", devices_state_path="s")
    assert refusal(both) == "Cannot set both 'to be' and 'from' vm tempate"
    for role in ("boot_to_be_template", "boot_from_template"):
        assert refusal(vm_config(**{role: True})) == "Missing MemoryPath for vm template"
    of_template = vm_config(boot_from_template=True, memory_path="m")
    assert refusal(of_template) == "Missing DevicesStatePath to Load from vm template"
    assert refusal(of_template, RUNTIME_1X) == "Missing DevicesStatePath to load from vm template"
    vm_config(boot_from_template=True, memory_path="m", devices_state_path="s").valid()
    vm_config(boot_to_be_template=True, memory_path="m").valid()


def test_g9_defaults_are_filled_in() -> None:
    filled = vm_config().valid().hypervisor_config
    assert filled == HypervisorConfig(
        kernel_path="/k",
        initrd_path="/i",
        num_vcpus_f=1.0,
        memory_size=2048,
        default_bridges=1,
        block_device_driver="virtio-scsi",
        default_max_vcpus=240,
        msize_9p=8192,
    )
    older = vm_config().valid(RUNTIME_1X).hypervisor_config
    assert older == attrs.evolve(filled, num_vcpus=1, num_vcpus_f=0.0)


def test_g9_what_is_set_stays() -> None:
    config = vm_config(
        num_vcpus_f=0.5,
        memory_size=64,
        default_bridges=3,
        block_device_driver="virtio-blk",
        default_max_vcpus=2,
        msize_9p=1,
    )
    assert config.valid() == config


def test_g9_virtio_fs_has_no_use_for_9p() -> None:
    assert vm_config(shared_fs="virtio-fs").valid().hypervisor_config.msize_9p == 0


def test_g9_more_cpus_than_qemu_takes_are_cut_by_current_kata_only() -> None:
    many = vm_config(default_max_vcpus=1000)
    assert many.valid().hypervisor_config.default_max_vcpus == 240
    assert many.valid(RUNTIME_1X).hypervisor_config.default_max_vcpus == 1000


def test_a_remote_hypervisor_needs_nothing() -> None:
    remote = VMConfig(hypervisor_config=HypervisorConfig(remote_hypervisor_socket="/s"))
    assert remote.valid() == remote
    assert refusal(remote, RUNTIME_1X) == "Missing kernel path"


def test_secure_execution_has_its_own_rootfs() -> None:
    secure = {"confidential_guest": True, "hypervisor_machine_type": "s390-ccw-virtio"}
    assert refusal(vm_config(**secure)) == "Neither the image or initrd path may be set for Secure Execution"
    bare = vm_config(**secure, initrd_path="", block_device_driver="virtio-blk").valid()
    assert bare.hypervisor_config.block_device_driver == "virtio-blk-ccw"


def test_confidential_guests_shun_virtio_mmio() -> None:
    config = vm_config(confidential_guest=True, block_device_driver="virtio-mmio")
    assert refusal(config) == (
        "confidential guests must not use virtio-mmio (use virtio-blk-pci); virtio-mmio is not hardened for CoCo"
    )


def test_the_first_fault_is_told() -> None:
    """Kata checks the kernel first, then the rootfs, then the template."""
    assert refusal(vm_config(kernel_path="", initrd_path="", boot_to_be_template=True)) == "Missing kernel path"
    assert refusal(vm_config(initrd_path="", boot_to_be_template=True)) == "Missing image and initrd path"
