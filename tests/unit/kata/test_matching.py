"""Which VMs can serve which requests."""

from __future__ import annotations

import attrs
import pytest

from pool.kata.errors import ConfigMismatchError
from pool.kata.records.config import KataAgentConfig, ProxyConfig, VMConfig
from pool.kata.records.gojson import decode
from pool.kata.records.gokinds import Generation
from pool.kata.records.hypervisor_config import HypervisorConfig, Param
from pool.kata.records.matching import check_config
from tests.unit.kata.configs import sample, vm_config

CURRENT, RUNTIME_1X = Generation.CURRENT, Generation.RUNTIME_1X


def mismatch(base: VMConfig, new: VMConfig, generation: Generation = CURRENT) -> ConfigMismatchError:
    with pytest.raises(ConfigMismatchError) as error:
        check_config(base, new, generation=generation)
    return error.value


def differing(base: VMConfig, new: VMConfig, generation: Generation = CURRENT) -> list[str]:
    return [difference.path for difference in mismatch(base, new, generation).differences]


def test_f8_two_empty_configs_match() -> None:
    check_config(VMConfig(), VMConfig())
    check_config(VMConfig(), VMConfig(), generation=RUNTIME_1X)


def test_f8_the_hypervisor_must_be_the_same() -> None:
    qemu, other = VMConfig(hypervisor_type="qemu"), VMConfig(hypervisor_type="clh")
    error = mismatch(qemu, other)
    assert str(error) == "hypervisor type does not match: qemu vs. clh"
    assert [difference.path for difference in error.differences] == ["HypervisorType"]
    check_config(qemu, qemu)


def test_f8_the_agent_must_be_the_same_in_runtime_1x() -> None:
    kata, other = VMConfig(agent_type="kata"), VMConfig(agent_type="noop")
    assert str(mismatch(kata, other, RUNTIME_1X)) == "agent type does not match: kata vs. noop"
    check_config(kata, kata, generation=RUNTIME_1X)
    check_config(kata, other, generation=CURRENT)


def test_f8_kernel_and_image_must_be_the_same() -> None:
    bare, equipped = VMConfig(), VMConfig(hypervisor_config=HypervisorConfig(kernel_path="/k", image_path="/img"))
    assert differing(bare, equipped) == ["HypervisorConfig.KernelPath", "HypervisorConfig.ImagePath"]
    check_config(equipped, equipped)


def test_the_text_is_katas_with_both_configs_as_go_prints_them() -> None:
    base = vm_config(kernel_params=(Param(key="a", value="b"), Param(key="quiet")), num_vcpus_f=2.0)
    text = str(mismatch(base, vm_config()))
    assert text.startswith(
        "hypervisor config does not match, base: {HypervisorType:qemu AgentConfig:{KernelModules:[] "
    )
    assert "KernelParams:[{Key:a Value:b} {Key:quiet Value:}] KernelVerityParams: " in text
    assert "NumVCPUsF:0 " in text, "what is not compared is not shown"
    assert ". new: {HypervisorType:qemu " in text
    assert "SnpGuestPolicy:<nil>" in text


@pytest.mark.parametrize("generation", Generation)
@pytest.mark.parametrize(
    "field",
    [
        {"num_vcpus": 2},
        {"num_vcpus_f": 2.0},
        {"memory_size": 512},
        {"boot_to_be_template": True},
        {"boot_from_template": True},
        {"memory_path": "/m"},
        {"devices_state_path": "/s"},
    ],
)
def test_size_and_template_do_not_matter(field: dict[str, object], generation: Generation) -> None:
    check_config(vm_config(), vm_config(**field), generation=generation)


@pytest.mark.parametrize(
    "field", ["shared_path", "vm_store_path", "run_store_path", "sandbox_name", "sandbox_namespace"]
)
def test_a_sandboxes_own_places_do_not_matter(field: str) -> None:
    check_config(vm_config(), vm_config(**{field: "x"}))


def test_the_proxys_settings_do_not_matter_and_its_type_does() -> None:
    base = attrs.evolve(vm_config(), proxy_type="kataProxy")
    check_config(base, attrs.evolve(base, proxy_config=ProxyConfig(path="/p", debug=True)), generation=RUNTIME_1X)
    assert differing(base, attrs.evolve(base, proxy_type="noProxy"), RUNTIME_1X) == ["ProxyType"]


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ({"selinux_process_label": "x"}, "HypervisorConfig.SELinuxProcessLabel"),
        ({"default_max_vcpus": 3}, "HypervisorConfig.DefaultMaxVCPUs"),
        ({"debug": True}, "HypervisorConfig.Debug"),
        ({"vm_id": "x"}, "HypervisorConfig.VMid"),
        ({"kernel_params": (Param(key="x"),)}, "HypervisorConfig.KernelParams"),
    ],
)
def test_what_kata_does_not_set_aside_is_compared(field: dict[str, object], path: str) -> None:
    assert differing(vm_config(), vm_config(**field)) == [path]


def test_the_agents_settings_are_compared() -> None:
    other = attrs.evolve(vm_config(), agent_config=KataAgentConfig(dial_timeout=45))
    assert differing(vm_config(), other) == ["AgentConfig.DialTimeout"]


def test_all_differences_are_named() -> None:
    other = attrs.evolve(vm_config(debug=True, iommu=True), agent_config=KataAgentConfig(debug=True))
    assert differing(vm_config(), other) == [
        "AgentConfig.Debug",
        "HypervisorConfig.Debug",
        "HypervisorConfig.IOMMU",
    ]


def test_a_generation_compares_only_what_it_knows() -> None:
    check_config(vm_config(), vm_config(mlock=True), generation=CURRENT)
    assert differing(vm_config(), vm_config(mlock=True), RUNTIME_1X) == ["HypervisorConfig.Mlock"]
    check_config(vm_config(), vm_config(rootless=True), generation=RUNTIME_1X)
    assert differing(vm_config(), vm_config(rootless=True)) == ["HypervisorConfig.Rootless"]


def test_f17_an_empty_list_is_none() -> None:
    without, empty, one = (
        decode(VMConfig, b'{"HypervisorConfig": {"PFlash": %s}}' % value) for value in (b"null", b"[]", b'["x"]')
    )
    check_config(without, empty)
    assert differing(without, one) == ["HypervisorConfig.PFlash"]


def test_f17_elements_of_lists_are_compared() -> None:
    one, other = vm_config(pflash=("a", "b")), vm_config(pflash=("a", "c"))
    assert differing(one, other) == ["HypervisorConfig.PFlash"]
    check_config(one, vm_config(pflash=("a", "b")))


def test_f17_an_empty_map_is_none() -> None:
    without, empty, one = (
        decode(VMConfig, b'{"HypervisorConfig": {"VFIODevices": [{"DriverOptions": %s}]}}' % value)
        for value in (b"null", b"{}", b'{"a": "b"}')
    )
    check_config(without, empty)
    check_config(one, one)
    assert differing(without, one) == ["HypervisorConfig.VFIODevices"]


def test_a_policy_matches_its_equal() -> None:
    """Kata compares the addresses of the two, and so none ever matches that was received."""
    check_config(vm_config(snp_guest_policy=7), vm_config(snp_guest_policy=7))
    assert differing(vm_config(snp_guest_policy=0), vm_config()) == ["HypervisorConfig.SnpGuestPolicy"]


def test_unknown_fields_do_not_matter() -> None:
    newer = decode(VMConfig, b'{"HypervisorType": "qemu", "HypervisorConfig": {"Warp": 9}}')
    check_config(newer, VMConfig(hypervisor_type="qemu"))


@pytest.mark.parametrize(
    ("name", "generation"), [("current-VMConfig-Data", CURRENT), ("runtime1x-VMConfig-Data", RUNTIME_1X)]
)
def test_a_received_config_matches_itself(name: str, generation: Generation) -> None:
    check_config(decode(VMConfig, sample(name)), decode(VMConfig, sample(name)), generation=generation)
