"""VMCache's messages, against what Go really writes."""

from __future__ import annotations

import base64
import json
from typing import Any

import attrs
import pytest

from pool.kata.cache.wire import (
    Bridge,
    CachedVm,
    QemuGrpc,
    QemuState,
    Smp,
    config_from_grpc,
    config_to_grpc,
    vm_from_grpc,
    vm_to_grpc,
    vsock_url,
)
from pool.kata.errors import InvalidConfigError, WireError
from pool.kata.records.config import KataAgentConfig, VMConfig
from pool.kata.records.gojson import GoRecord, decode, encode, fields_of
from pool.kata.records.gokinds import Generation
from pool.kata.records.hypervisor_config import DeviceInfo, HypervisorConfig
from pool.kata.records.matching import check_config
from tests.unit.kata.configs import sample, vm_config
from vmpool.wire.generated.cache import GrpcVm, GrpcVmConfig

CURRENT, RUNTIME_1X = Generation.CURRENT, Generation.RUNTIME_1X

SAMPLES: list[tuple[str, type[GoRecord], Generation]] = [
    ("current-VMConfig-Data", VMConfig, CURRENT),
    ("current-AgentConfig", KataAgentConfig, CURRENT),
    ("current-qemuGrpc", QemuGrpc, CURRENT),
    ("runtime1x-VMConfig-Data", VMConfig, RUNTIME_1X),
    ("runtime1x-AgentConfig", KataAgentConfig, RUNTIME_1X),
    ("runtime1x-qemuGrpc", QemuGrpc, RUNTIME_1X),
]

VM = CachedVm(
    id="vm-1",
    qemu=QemuGrpc(
        id="vm-1",
        qmp_channel_path="/run/vc/vm/vm-1/qmp.sock",
        state=QemuState(
            uuid="u", bridges=(Bridge(id="pci-bridge-0", type="pci", addr=2, max_capacity=30),), hotplugged_memory=128
        ),
        qemu_smp=Smp(cpus=1, cores=1, threads=1, sockets=4, max_cpus=4),
        context_id=1234567,
    ),
    vcpus=1,
    memory_mib=2048,
    vcpus_offline=1,
    proxy_pid=77,
    agent_url="vsock://1234567:1024",
)


def same(value: Any) -> Any:
    """To Kata, an empty list is a missing one."""
    if isinstance(value, dict):
        return {key: same(content) for key, content in value.items()}
    if isinstance(value, list):
        return [same(member) for member in value] or None
    return value


@pytest.mark.parametrize(("name", "record", "generation"), SAMPLES)
def test_every_sample_comes_back_as_it_was(name: str, record: type[GoRecord], generation: Generation) -> None:
    decoded = decode(record, sample(name))
    assert decoded.extra == {}
    assert same(json.loads(encode(decoded, generation))) == same(json.loads(sample(name)))


@pytest.mark.parametrize("name", ["current-VMConfig-Data", "current-AgentConfig", "current-qemuGrpc"])
def test_current_samples_come_back_byte_by_byte(name: str) -> None:
    record = next(record for sampled, record, _ in SAMPLES if sampled == name)
    assert encode(decode(record, sample(name)), CURRENT) == sample(name)


@pytest.mark.parametrize(("name", "record", "generation"), SAMPLES)
def test_each_generation_finds_its_own_in_an_answer_for_both(
    name: str, record: type[GoRecord], generation: Generation
) -> None:
    for_both = json.loads(encode(decode(record, sample(name))))
    assert contains(for_both, same(json.loads(sample(name))))


def contains(larger: Any, smaller: Any) -> bool:
    if isinstance(smaller, dict):
        return all(key in larger and contains(larger[key], content) for key, content in smaller.items())
    if isinstance(smaller, list):
        return len(larger) == len(smaller) and all(map(contains, larger, smaller))
    return bool(larger == smaller)


@pytest.mark.parametrize("generation", Generation)
def test_every_field_is_sent_to_its_generation(generation: Generation) -> None:
    """120 fields in kata-containers, 63 in runtime 1.x."""
    sent = json.loads(encode(HypervisorConfig(), generation))
    assert len(sent) == {CURRENT: 120, RUNTIME_1X: 63}[generation]
    assert not any("custom" in key for key in sent)


@pytest.mark.parametrize("record", [VMConfig, HypervisorConfig, KataAgentConfig, QemuGrpc, Bridge, DeviceInfo])
def test_no_key_passes_for_another_in_go(record: type[GoRecord]) -> None:
    """Go takes a key for a field of another case; QemuState's two VFIO fields are Kata's own."""
    names = [field.name.casefold() for field in fields_of(record)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["current", "runtime1x"])
def test_v5_a_config_sent_and_received_is_the_same_config(name: str) -> None:
    config = decode(VMConfig, sample(f"{name}-VMConfig-Data"))
    for generation in Generation:
        received = config_from_grpc(config_to_grpc(config))
        check_config(config, received, generation=generation)
        assert received == config


def test_q1_a_vm_sent_and_received_is_the_same_vm() -> None:
    assert vm_from_grpc(vm_to_grpc(VM), hypervisor_type="qemu") == VM


def test_runtime_1x_learns_the_agents_address_and_a_later_client_its_context_id() -> None:
    message = vm_to_grpc(VM)
    assert (message.proxy_url, message.proxy_pid) == ("vsock://1234567:1024", 77)
    assert json.loads(message.hypervisor)["ContextID"] == 1234567
    assert vsock_url(1234567) == message.proxy_url


@pytest.mark.parametrize("pid", [0, -1, -77])
def test_no_client_is_sent_a_proxy_pid_that_is_not_one_process(pid: int) -> None:
    """Runtime 1.x sends it SIGTERM: 0 is the client's own process group, -1 is every process."""
    with pytest.raises(ValueError, match=f"proxy_pid: {pid} is not"):
        vm_to_grpc(attrs.evolve(VM, proxy_pid=pid))


def test_runtime_1_6_to_1_8_call_the_devices_of_a_bridge_by_another_name() -> None:
    """Its client adds to the map under that name, and panics where there is none."""
    bridge = Bridge(devices={1: "net"}, id="pci-bridge-0")
    sent = json.loads(encode(bridge))
    assert sent["Address"] == sent["Devices"] == {"1": "net"}
    assert json.loads(encode(Bridge()))["Address"] == {}
    assert "Address" not in json.loads(encode(bridge, RUNTIME_1X)), "1.12 does not know it"
    assert decode(Bridge, b'{"Address": {"1": "net"}, "ID": "pci-bridge-0"}') == bridge
    assert decode(Bridge, b'{"address": {"1": "net"}, "ID": "pci-bridge-0"}') == bridge
    for both in (
        b'{"Devices": {"1": "net"}, "Address": {"2": "x"}}',
        b'{"Address": {"2": "x"}, "Devices": {"1": "net"}}',
    ):
        assert decode(Bridge, both).devices == {1: "net"}
    with pytest.raises(WireError, match=r"^Devices: must be an object with numbers as keys"):
        decode(Bridge, b'{"Address": {"one": "x"}}')


def test_a_vm_of_any_server_is_read() -> None:
    for name in ("current-qemuGrpc", "runtime1x-qemuGrpc"):
        vm = vm_from_grpc(GrpcVm(id="ID", hypervisor=sample(name), cpu=1, memory=2048), hypervisor_type="qemu")
        assert vm.qemu.qmp_channel_path == "/run/vc/vm/ID/qmp.sock"
        assert vm.qemu.state.bridges[0].addr == 2
        assert vm.qemu.qemu_smp.max_cpus == 4
        assert (vm.agent_url, vm.qemu.context_id) == ("", 0)
    assert decode(QemuGrpc, sample("current-qemuGrpc")).state.bridges[0].devices == {1: "x"}


@pytest.mark.parametrize(
    ("kind", "name"), [("clh", "cloudHypervisor"), ("firecracker", "firecracker"), ("mock", "mockHypervisor")]
)
def test_other_hypervisors_vms_cannot_travel(kind: str, name: str) -> None:
    with pytest.raises(InvalidConfigError, match=f"^{name} is not supported by VM cache$"):
        vm_from_grpc(GrpcVm(hypervisor=b"{}"), hypervisor_type=kind)


def test_an_unknown_agent_cannot_travel() -> None:
    config = attrs.evolve(vm_config(), agent_type="hyperstart")
    with pytest.raises(InvalidConfigError, match=r"^agent type is not supported by VM cache$"):
        config_to_grpc(config)
    with pytest.raises(InvalidConfigError, match=r"^agent type hyperstart is not supported by VM cache$"):
        config_from_grpc(GrpcVmConfig(data=b'{"AgentType": "hyperstart"}', agent_config=b"{}"))


def test_the_agents_own_message_goes_before_data_if_it_can_be_read() -> None:
    data = b'{"AgentConfig": {"DialTimeout": 1}}'
    read = config_from_grpc(GrpcVmConfig(data=data, agent_config=b'{"DialTimeout": 2}'))
    assert read.agent_config.dial_timeout == 2
    for unreadable in (b"", b"nonsense", b'{"DialTimeout": "2"}'):
        assert config_from_grpc(GrpcVmConfig(data=data, agent_config=unreadable)).agent_config.dial_timeout == 1


def test_unknown_keys_are_echoed() -> None:
    data = b'{"HypervisorConfig":{"Warp":{"a":[1,2.5,null]}},"Engage":true}'
    echoed = json.loads(encode(decode(VMConfig, data)))
    assert echoed["Engage"] is True
    assert echoed["HypervisorConfig"]["Warp"] == {"a": [1, 2.5, None]}


def test_keys_match_without_regard_to_case_unless_one_matches_exactly() -> None:
    assert decode(VMConfig, b'{"hypervisortype": "qemu"}').hypervisor_type == "qemu"
    state = decode(QemuState, b'{"HotplugVFIO": "twin", "HotPlugVFIO": "no-port"}')
    assert (state.hot_plug_vfio, state.hotplug_vfio) == ("no-port", "twin")


def test_null_is_the_zero_value_of_anything() -> None:
    nulls = {field.name: None for field in fields_of(HypervisorConfig)}
    assert decode(HypervisorConfig, json.dumps(nulls).encode()) == HypervisorConfig()
    assert decode(VMConfig, b'{"HypervisorConfig": null}') == VMConfig()
    assert decode(VMConfig, b"null") == VMConfig()


def test_bytes_are_base64_and_none_are_null() -> None:
    digest = HypervisorConfig(initdata_digest=b"\x00\xff")
    assert json.loads(encode(digest))["InitdataDigest"] == base64.b64encode(b"\x00\xff").decode()
    assert decode(HypervisorConfig, encode(digest)) == digest
    assert json.loads(encode(HypervisorConfig()))["InitdataDigest"] is None


def test_empty_lists_are_null_and_empty_maps_are_not() -> None:
    written = json.loads(encode(Bridge()))
    assert written["Devices"] == {}, "Kata's client adds to it, and would panic"
    assert json.loads(encode(HypervisorConfig()))["KernelParams"] is None


@pytest.mark.parametrize(("number", "written"), [(1.0, "1"), (0.0, "0"), (0.5, "0.5"), (1.1, "1.1"), (240.0, "240")])
def test_numbers_of_cpus_are_written_as_go_does(number: float, written: str) -> None:
    assert f'"NumVCPUsF":{written},'.encode() in encode(HypervisorConfig(num_vcpus_f=number), CURRENT)


def test_text_is_written_as_go_does() -> None:
    written = encode(HypervisorConfig(kernel_path="/k<&>\u2028\u00e9"), CURRENT)
    assert '"KernelPath":"/k\\u003c\\u0026\\u003e\\u2028\u00e9"'.encode() in written


def test_half_a_character_is_replaced() -> None:
    config = decode(VMConfig, b'{"HypervisorType": "\\ud800", "Extra": "\\ud800", "\xff": 1}')
    assert config.hypervisor_type == "\ufffd"
    assert json.loads(encode(config))["Extra"] == "\ufffd"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON: "),
        (b"{", "not JSON: "),
        (b"[" * 100_000, "not JSON: "),
        (b'{"x": NaN}', "not JSON: NaN is not a number"),
        (b'{"x": 1e999}', "not JSON: 1e999 is too large"),
        (b"[]", ": must be an object, not []"),
        (b'{"HypervisorType": 1}', "HypervisorType: must be a string, not 1"),
        (b'{"HypervisorConfig": {"MemorySize": "2048"}}', "HypervisorConfig.MemorySize: must be an integer"),
        (b'{"HypervisorConfig": {"MemorySize": 2048.0}}', "HypervisorConfig.MemorySize: must be an integer"),
        (b'{"HypervisorConfig": {"MemorySize": true}}', "HypervisorConfig.MemorySize: must be an integer"),
        (b'{"HypervisorConfig": {"MemorySize": -1}}', "HypervisorConfig.MemorySize: must be an integer from 0 to"),
        (b'{"HypervisorConfig": {"MemorySize": 4294967296}}', "HypervisorConfig.MemorySize: must be an integer"),
        (b'{"HypervisorConfig": {"NumVCPUsF": "1"}}', "HypervisorConfig.NumVCPUsF: must be a number"),
        (b'{"HypervisorConfig": {"Debug": 1}}', "HypervisorConfig.Debug: must be true or false, not 1"),
        (b'{"HypervisorConfig": {"PFlash": "x"}}', "HypervisorConfig.PFlash: must be a list"),
        (b'{"HypervisorConfig": {"PFlash": ["x", 1]}}', "HypervisorConfig.PFlash[1]: must be a string, not 1"),
        (b'{"HypervisorConfig": {"KernelParams": [1]}}', "HypervisorConfig.KernelParams[0]: must be an object"),
        (b'{"HypervisorConfig": {"InitdataDigest": "***"}}', "HypervisorConfig.InitdataDigest: must be base64"),
        (
            b'{"HypervisorConfig": {"VFIODevices": [{"DriverOptions": []}]}}',
            "HypervisorConfig.VFIODevices[0].DriverOptions: must be an object",
        ),
    ],
)
def test_what_go_refuses_is_refused_with_its_path(data: bytes, said: str) -> None:
    with pytest.raises(WireError) as error:
        decode(VMConfig, data)
    assert str(error.value).startswith(said.removeprefix(": "))


def test_slots_of_bridges_are_numbers() -> None:
    with pytest.raises(WireError, match="Devices: must be an object with numbers as keys"):
        decode(Bridge, b'{"Devices": {"one": "x"}}')
