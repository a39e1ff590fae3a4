"""Kata's configuration file to settings of this service."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.errors import describe
from pool.assembly.diagnosis import examine
from pool.kata.cache.wire import config_from_grpc, config_to_grpc
from pool.kata.config.qemu_section import HostSize
from pool.kata.config.settings import KataSettings, settings_from_kata
from pool.kata.records.gokinds import Generation
from pool.kata.records.matching import check_config
from pool.producers.direct import DirectSettings
from pool.producers.template import TemplateSettings
from pool.settings.config import ConfigError
from pool.settings.limits import UNREACHED
from tests.unit.kata.kata_files import HOST, OLD, load, problems, write
from vmm.devices.vsock import check_vsock
from vmm.errors import MissingFileError, SpecError, TemplateError
from vmm.words.kinds import ProducerKind
from vmm.words.machines import AgentChannel, AgentKind

OURS = '[vmpool]\nagent = "builtin"\n'
"""The guest is not Kata's."""


def settings(home: Path, qemu: str = "", **parts: str) -> KataSettings:
    return settings_from_kata(write(home, qemu, **parts), host=HOST)


def test_no_cache_keeps_no_vms(home: Path) -> None:
    made = settings(home)
    (profile,) = made.settings.profiles.values()
    assert profile.size == 0
    assert profile.producer == DirectSettings()
    assert not made.factory.vm_cache


def test_the_profile_is_katas_vm(home: Path) -> None:
    made = settings(
        home,
        'default_vcpus = 1.5\ndefault_memory = 512\nkernel_params = "x=y"\ncpu_features = "pmu=off"',
        rest=f'[factory]\nvm_cache_number = 3\nenable_template = true\ntemplate_path = "/t"\n{OURS}',
    )
    (profile,) = made.settings.profiles.values()
    assert made.settings.profiles.keys() == {"default"}
    assert (profile.size, profile.producer.kind) == (3, ProducerKind.TEMPLATE)
    assert (profile.vcpus, profile.max_vcpus, profile.memory_mib, profile.max_memory_mib) == (2, 4, 512, 16000)
    assert (profile.qemu, profile.kernel, profile.initrd) == (
        f"{home}/qemu",
        home / "vmlinuz",
        home / "initrd",
    )
    assert profile.kernel_parameters == "scsi_mod.scan=none x=y"
    assert profile.cpu_model == "max,pmu=off"
    assert profile.pci_bridges == 1
    assert profile.producer == TemplateSettings(template_directory=Path("/t/vmpool")), (
        "Kata's own template is not touched"
    )


def test_all_sandboxes_are_one_users(home: Path) -> None:
    limits = settings(home).settings.limits
    assert limits.requests_per_user == limits.max_open_requests / 2 == 1000
    assert limits.leases_per_user == UNREACHED


def test_a_small_host(home: Path) -> None:
    """Kata lets a VM have more memory than the host."""
    made = settings_from_kata(write(home), host=HostSize(cpus=1, memory_mib=1024))
    profile = made.settings.profiles["default"]
    assert (profile.memory_mib, profile.max_memory_mib, profile.max_vcpus) == (2048, 2048, 1)


def test_a_large_host(home: Path) -> None:
    made = settings_from_kata(write(home), host=HostSize(cpus=1024, memory_mib=4 * 2**20))
    profile = made.settings.profiles["default"]
    assert (profile.max_memory_mib, profile.max_vcpus) == (2**20, 240)


@pytest.mark.parametrize("old", [False, True])
def test_a_client_with_the_same_file_matches(home: Path, old: bool) -> None:
    """The server's side, as it travels, against what a client's loader computes."""
    rest = "[factory]\nvm_cache_number = 1\n[agent.kata]\ndial_timeout = 45\n" + (OLD if old else "")
    made = settings(home, 'kernel_params = "a b=c"\nmachine_type = "q35"', rest=rest)
    received = config_from_grpc(config_to_grpc(made.factory.vm_config))
    clients = load(home, 'kernel_params = "a b=c"\nmachine_type = "q35"', rest=rest)
    check_config(received, clients.factory.vm_config.valid(clients.generation), generation=clients.generation)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('machine_type = "pc"', 'hypervisor.qemu.machine_type: unrecognised machinetype: pc; set "q35"'),
        ('machine_type = "microvm"', 'hypervisor.qemu.machine_type: vmpool makes q35 machines only; set "q35"'),
    ],
)
def test_machines_that_cannot_be_made(home: Path, line: str, problem: str) -> None:
    assert problems(settings, home, line) == (problem,)


def test_runtime_rs_keys_are_named(home: Path) -> None:
    rest = "[hypervisor.qemu.factory]\nenable_template = true\n"
    (said,) = problems(settings, home, rest=rest)
    assert said.startswith("hypervisor.qemu.factory.enable_template: clones must be reseeded")
    fs = 'shared_fs = "virtio-fs"\nvirtio_fs_daemon = "/d"'
    (said,) = problems(settings, home, shared_fs=fs, rest=rest + OURS)
    assert said.endswith('; set "none"'), "runtime-rs has no virtio-9p"
    profile = settings(home, rest=rest + OURS).settings.profiles["default"]
    assert profile.producer.kind is ProducerKind.TEMPLATE


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("confidential_guest = true", "the host can read the memory of vmpool's machines"),
        ("sev_snp_guest = true", "the host can read the memory of vmpool's machines"),
        ("enable_hugepages = true", "vmpool's machines have no huge pages"),
        ('firmware = "{file}"', "vmpool's machines have QEMU's own firmware"),
        ('firmware_volume = "{file}"', "vmpool's machines have QEMU's own firmware"),
        ('pflashes = ["{file}"]', "vmpool's machines have QEMU's own firmware"),
    ],
)
def test_a_machine_that_no_vm_of_ours_is_is_not_promised(home: Path, line: str, reason: str) -> None:
    line = line.format(file=home / "initrd")
    key = line.partition(" ")[0]
    assert problems(settings, home, line) == (f"hypervisor.qemu.{key}: {reason}; remove it",)
    load(home, line)  # a client of Kata's server may want such VMs


def test_an_image_cannot_be_booted(home: Path) -> None:
    assert problems(settings, home, rootfs="image") == (
        "hypervisor.qemu.image: vmpool boots an initrd only; set initrd instead",
    )


def test_g5_and_g6_katas_verdict_comes_along(home: Path) -> None:
    assert problems(settings, home, f'image = "{home}/image"')[0] == (
        "hypervisor.qemu: Image and initrd path cannot be both set"
    )
    path = home / "c.toml"
    path.write_text(f'[hypervisor.qemu]\npath = "{home}/qemu"\nkernel = "{home}/vmlinuz"\nshared_fs = "none"')
    assert problems(settings_from_kata, path) == ("hypervisor.qemu: Missing image and initrd path",)


def test_templates_and_virtio_fs(home: Path) -> None:
    template = f"[factory]\nenable_template = true\n{OURS}"
    fs = 'shared_fs = "virtio-fs"\nvirtio_fs_daemon = "/d"'
    (said,) = problems(settings, home, shared_fs=fs, rest=template)
    assert said.startswith(
        "hypervisor.qemu.shared_fs: VM templating has been enabled with virtio-fs and this configuration "
    )
    (said,) = problems(settings, home, 'machine_type = "q35"\nfile_mem_backend = "/dev/shm"', rest=template + OLD)
    assert "with either virtio-fs or file backed memory and" in said
    settings(home, shared_fs=fs)


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"rest": "[factory]\nvm_cache_number = 20000"}, "factory.vm_cache_number: must be <= 10000: 20000"),
        ({"qemu": "default_memory = 2000000"}, "hypervisor.qemu.default_memory: must be <= 1048576: 2000000"),
        ({"qemu": 'cpu_features = "x y"'}, "hypervisor.qemu.cpu_features: has "),
        ({"qemu": f'kernel_params = "{"x" * 2000}"'}, "hypervisor.qemu.kernel_params: Length of"),
    ],
)
def test_what_the_service_cannot_take_is_named_by_katas_key(home: Path, parts: dict[str, str], problem: str) -> None:
    (said,) = problems(settings, home, **parts)
    assert said.startswith(problem)


@pytest.mark.parametrize(
    ("rest", "agent", "channel"),
    [
        pytest.param("", AgentKind.NOOP, AgentChannel.VSOCK, id="katas-agent-is-behind-vsock"),
        pytest.param(OLD, AgentKind.NOOP, AgentChannel.VIRTIO_SERIAL, id="or-behind-a-proxy-in-runtime-1x"),
        pytest.param('[vmpool]\nchannel = "virtio-serial"', AgentKind.NOOP, AgentChannel.VIRTIO_SERIAL, id="no-vsock"),
        pytest.param(OURS, AgentKind.BUILTIN, AgentChannel.VIRTIO_SERIAL, id="ours"),
        pytest.param(f'{OURS}channel = "vsock"', AgentKind.BUILTIN, AgentChannel.VSOCK, id="ours-behind-vsock"),
        pytest.param('[vmpool]\nagent = "qga"', AgentKind.QGA, AgentChannel.VIRTIO_SERIAL, id="qemu-ga"),
    ],
)
def test_whom_vmpool_can_ask_in_the_guest(home: Path, rest: str, agent: AgentKind, channel: AgentChannel) -> None:
    profile = settings(home, 'machine_type = "q35"', rest=rest).settings.profiles["default"]
    assert (profile.agent, profile.channel) == (agent, channel)


def test_runtime_1x_with_vsock(home: Path) -> None:
    made = settings(home, 'machine_type = "q35"\nuse_vsock = true', rest=OLD)
    assert made.settings.profiles["default"].channel is AgentChannel.VSOCK


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ('[vmpool]\nagent = "kata"', "vmpool.agent: must be one of 'builtin', 'qga', 'noop'"),
        ("[vmpool]\nagent = 1", "vmpool.agent: "),
        ('[vmpool]\nchannel = "hvsock"', "vmpool.channel: must be one of 'virtio-serial', 'vsock'"),
        ('[vmpool]\nagent = "qga"\nchannel = "vsock"', "vmpool.channel: qemu-ga does not answer there"),
        ("vmpool = 1", "vmpool: must be a table"),
        ("[factory]\nenable_template = true", "factory.enable_template: clones must be reseeded"),
    ],
)
def test_agents_that_cannot_be(home: Path, rest: str, problem: str) -> None:
    if rest.startswith("vmpool"):
        path = write(home)
        path.write_text(f"{rest}\n{path.read_text()}")
        (said,) = problems(settings_from_kata, path)
    else:
        (said,) = problems(settings, home, rest=rest)
    assert said.startswith(problem)


CACHE = "[factory]\nvm_cache_number = 1\n"
Q35 = 'machine_type = "q35"\n'


def test_a_cache_that_no_client_of_runtime_1x_could_use_is_not_started(home: Path) -> None:
    """It would take the VM, and find no kata-proxy to its agent. With vsock it needs none."""
    with pytest.raises(ConfigError) as error:
        settings(home, Q35, rest=CACHE + OLD).check_clients()
    (said,) = error.value.problems
    assert said.startswith("hypervisor.qemu.use_vsock: ")
    assert "set use_vsock = true" in said
    settings(home, Q35, rest=OLD).check_clients()
    settings(home, f"{Q35}use_vsock = true", rest=CACHE).check_clients()


@pytest.mark.parametrize(
    ("qemu", "rest", "reason"),
    [
        pytest.param("use_vsock = true", "", "", id="runtime-1x-with-vsock"),
        pytest.param("", OLD + OURS, 'vmpool.agent = "builtin"', id="our-agent"),
        pytest.param("use_vsock = true", '[vmpool]\nagent = "qga"', 'vmpool.agent = "qga"', id="qemu-ga"),
        pytest.param(
            "use_vsock = true", '[vmpool]\nchannel = "virtio-serial"', 'vmpool.channel = "virtio-serial"', id="no-way"
        ),
        pytest.param("", "", "Kata 2 or later", id="current"),
        pytest.param("", OURS, "Kata 2 or later", id="current-with-our-agent"),
    ],
)
def test_a_cache_that_stock_clients_cannot_use_says_why(home: Path, qemu: str, rest: str, reason: str) -> None:
    made = settings(home, Q35 + qemu, rest=CACHE + rest)
    made.check_clients()
    assert made.cache is not None
    if reason:
        assert reason in made.cache.useless_to_kata
        assert ('kata = "runtime 1.x"' in made.cache.useless_to_kata) == (made.generation is Generation.CURRENT)
    else:
        assert made.cache.useless_to_kata == ""


def test_a_host_without_vsock_is_told_by_the_users_key(home: Path) -> None:
    def check() -> None:
        check_vsock(home / "vhost-vsock")

    with pytest.raises(ConfigError) as error:
        settings(home, f"{Q35}use_vsock = true").check_host(check_vsock=check)
    (said,) = error.value.problems
    assert said == (
        f"hypervisor.qemu.use_vsock: {home}/vhost-vsock does not exist or cannot be read; load the module with "
        "`modprobe vhost_vsock` and get access to the device"
    )
    both = settings(home, f"{Q35}use_vsock = true", rest='[vmpool]\nchannel = "vsock"')
    with pytest.raises(ConfigError, match=r": vmpool\.channel: "):
        both.check_host(check_vsock=check)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            MissingFileError(field="qemu", path="/q", remedy="do"),
            "hypervisor.qemu.path: /q does not exist or cannot be",
        ),
        (SpecError(field="qemu", value="/q", reason="is old"), "hypervisor.qemu.path = '/q': is old"),
        (MissingFileError(field="initrd", path="/i", remedy="do"), "hypervisor.qemu.initrd: /i does not exist"),
        (SpecError(field="channel", value="vsock", reason="no"), "hypervisor.qemu.use_vsock = 'vsock': no"),
        (SpecError(field="directory", value="/d", reason="no"), "directory = '/d': no"),
        (
            TemplateError(reason="full; set template_directory to a place"),
            "template: full; set factory.template_path to a",
        ),
        (TemplateError(reason='no; set producer = "direct"'), "template: no; set factory.enable_template = false"),
        (ValueError("x"), "x"),
    ],
)
def test_what_is_found_at_the_start_is_told_by_the_users_key_too(home: Path, error: Exception, said: str) -> None:
    made = settings(home, f"{Q35}use_vsock = true")
    assert describe(ExceptionGroup("g", [error]), say=made.spell).startswith(said)


def test_a_host_without_vsock_is_told_by_our_key(home: Path) -> None:
    """Set elsewhere in the file it would be passed over."""

    def check() -> None:
        check_vsock(home / "vhost-vsock")

    with pytest.raises(
        ConfigError, match=r": vmpool\.channel: \S*/vhost-vsock does not exist or cannot be read; .* set"
    ):
        settings(home).check_host(check_vsock=check)
    settings(home, rest=OURS).check_host(check_vsock=check)
    (home / "vhost-vsock").touch()
    settings(home).check_host(check_vsock=check)


async def test_the_doctor_names_the_keys_of_the_file(home: Path) -> None:
    place = home / "t"
    (place / "vmpool").mkdir(parents=True)
    (place / "vmpool").chmod(0o777)
    made = settings(home, rest=f'[factory]\nenable_template = true\ntemplate_path = "{place}"\n{OURS}')
    findings = await examine(
        made.settings,
        socket_path=home / "s.sock",
        image_directory=home,
        cache_directory=home,
        spell=made.spell,
    )
    (fix,) = [finding.fix for finding in findings if finding.subject == "default: template"]
    assert fix.endswith("or set factory.template_path to a place of your own")
