"""Kata's configuration file: what its loader makes of it, and what this service does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.kinds import ProducerKind
from pool.config import ConfigError
from pool.factory.config import FactoryConfig, KataAgentConfig
from pool.factory.generation import Generation
from pool.factory.hypervisor_config import HypervisorConfig, Param
from pool.factory.kernel_params import parse_params, serialize_params
from pool.factory.matching import check_config
from pool.factory.qemu_section import HostSize
from pool.factory.runtime_config import Client, RuntimeConfig, load_runtime_config
from pool.factory.settings import KataSettings, settings_from_kata
from pool.factory.wire import config_from_grpc, config_to_grpc

HOST = HostSize(cpus=4, memory_mib=16000)

Load = Callable[..., RuntimeConfig]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("qemu", "vmlinuz", "initrd", "image"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(
    home: Path, qemu: str = "", *, rest: str = "", rootfs: str = "initrd", shared_fs: str = 'shared_fs = "virtio-9p"'
) -> Path:
    """A file with what every configuration needs, `qemu` more keys of [hypervisor.qemu], and other tables."""
    path = home / "configuration.toml"
    path.write_text(
        f'[hypervisor.qemu]\npath = "{home}/qemu"\nkernel = "{home}/vmlinuz"\n{rootfs} = "{home}/{rootfs}"\n'
        f"{shared_fs}\n{qemu}\n{rest}\n"
    )
    return path


def load(home: Path, qemu: str = "", *, client: Client = Client.COMMAND, **parts: str) -> RuntimeConfig:
    return load_runtime_config(write(home, qemu, **parts), host=HOST, client=client)


def hypervisor(home: Path, qemu: str = "", **parts: str) -> HypervisorConfig:
    return load(home, qemu, **parts).factory.vm_config.hypervisor_config


def settings(home: Path, qemu: str = "", **parts: str) -> KataSettings:
    return settings_from_kata(write(home, qemu, **parts), host=HOST)


def problems(call: Callable[..., object], *args: object, **parts: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as error:
        call(*args, **parts)
    return error.value.problems


OLD = "[proxy.kata]\n"


class TestFactorySection:
    def test_without_the_table_everything_is_off(self, home: Path) -> None:
        factory = load(home).factory
        assert (factory.template, factory.vm_cache, factory.cache) == (False, False, 0)
        assert factory.template_path == "/run/vc/vm/template"
        assert factory.vm_cache_endpoint == "/var/run/kata-containers/cache.sock"

    def test_its_keys(self, home: Path) -> None:
        factory = load(
            home,
            rest='[factory]\nenable_template = true\ntemplate_path = "/t"\nvm_cache_number = 3\n'
            'vm_cache_endpoint = "/c.sock"',
        ).factory
        assert factory == FactoryConfig(
            template=True,
            vm_cache=True,
            cache=3,
            template_path="/t",
            vm_cache_endpoint="/c.sock",
            vm_config=factory.vm_config,
        )

    def test_empty_strings_are_the_defaults(self, home: Path) -> None:
        factory = load(home, rest='[factory]\ntemplate_path = ""\nvm_cache_endpoint = ""').factory
        assert factory.template_path == "/run/vc/vm/template"
        assert factory.vm_cache_endpoint == "/var/run/kata-containers/cache.sock"

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("enable_template = 1", "factory.enable_template: must be true or false, not 1"),
            ("vm_cache_number = -1", "factory.vm_cache_number: must be a whole number from 0 to 4294967295, not -1"),
            ('vm_cache_number = "2"', 'factory.vm_cache_number: must be a whole number from 0 to 4294967295, not "2"'),
            ("vm_cache_endpoint = 1979-05-27", 'factory.vm_cache_endpoint: must be a string, not "1979-05-27"'),
        ],
    )
    def test_a_wrong_type_is_named_with_its_key(self, home: Path, line: str, problem: str) -> None:
        assert problems(load, home, rest=f"[factory]\n{line}") == (problem,)

    def test_g1_without_templates_any_rootfs_will_do(self, home: Path) -> None:
        load(home)
        load(home, rootfs="image")

    @pytest.mark.parametrize("generation", ["", OLD])
    def test_g2_templates_of_an_initrd(self, home: Path, generation: str) -> None:
        assert load(home, rest=f"[factory]\nenable_template = true\n{generation}").factory.template

    def test_g3_templates_of_an_image_are_refused_by_runtime_1x_only(self, home: Path) -> None:
        rest = "[factory]\nenable_template = true\n"
        assert load(home, rootfs="image", rest=rest).factory.template
        assert problems(load, home, rootfs="image", rest=rest + OLD) == (
            "factory.enable_template: Factory option enable_template requires an initrd image",
        )

    def test_a_cache_needs_qemu(self, home: Path) -> None:
        path = home / "configuration.toml"
        path.write_text("[hypervisor.clh]\n[factory]\nvm_cache_number = 1")
        assert problems(load_runtime_config, path) == ("hypervisor: VM cache just support qemu",)


class TestQemuSection:
    def test_defaults(self, home: Path) -> None:
        """Every field that Kata's loader sets although the file does not say so."""
        config = hypervisor(home)
        assert config == HypervisorConfig(
            hypervisor_path=f"{home}/qemu",
            kernel_path=f"{home}/vmlinuz",
            initrd_path=f"{home}/initrd",
            rootfs_type="ext4",
            hypervisor_machine_type="q35",
            entropy_source="/dev/urandom",
            shared_fs="virtio-9p",
            virtio_fs_cache="never",
            vhost_user_store_path="/var/run/kata-containers/vhost-user/",
            block_device_driver="virtio-scsi",
            block_device_aio="io_uring",
            hot_plug_vfio="no-port",
            cold_plug_vfio="no-port",
            measurement_algo="sha512",
            num_vcpus=1,
            num_vcpus_f=1.0,
            default_max_vcpus=4,
            memory_size=2048,
            default_max_memory_size=16000,
            mem_slots=10,
            default_bridges=1,
            msize_9p=8192,
            hypervisor_loglevel=1,
            mlock=True,
            kernel_params=(Param(key="scsi_mod.scan", value="none"),),
        )

    def test_runtime_1x_has_other_defaults(self, home: Path) -> None:
        config = hypervisor(home, shared_fs="", rest=OLD)
        assert config.hypervisor_machine_type == "pc"
        assert config.shared_fs == "virtio-9p"
        assert config.virtio_fs_cache == "none"

    def test_virtio_fs_is_currents_default_and_needs_its_daemon(self, home: Path) -> None:
        assert problems(load, home, shared_fs="") == (
            "hypervisor.qemu.virtio_fs_daemon: cannot enable virtio-fs without daemon path in configuration file",
        )
        assert hypervisor(home, 'virtio_fs_daemon = "/d"', shared_fs="").shared_fs == "virtio-fs"

    @pytest.mark.parametrize(
        ("given", "vcpus"), [("-1", 4.0), ("0", 1.0), ("1.5", 1.5), ("4", 4.0), ("4.5", 4.0), ("99", 4.0)]
    )
    def test_default_vcpus(self, home: Path, given: str, vcpus: float) -> None:
        assert hypervisor(home, f"default_vcpus = {given}").num_vcpus_f == vcpus

    @pytest.mark.parametrize(("given", "most"), [("0", 4), ("2", 2), ("4", 4), ("99", 4)])
    def test_default_maxvcpus(self, home: Path, given: str, most: int) -> None:
        assert hypervisor(home, f"default_maxvcpus = {given}").default_max_vcpus == most

    def test_no_more_cpus_than_qemu_takes(self, home: Path) -> None:
        large = load_runtime_config(
            write(home, "default_vcpus = -1\ndefault_maxvcpus = 1000"), host=HostSize(cpus=512, memory_mib=16000)
        ).factory.vm_config.hypervisor_config
        assert (large.default_max_vcpus, large.num_vcpus_f) == (240, 240.0)

    @pytest.mark.parametrize(("given", "current", "old"), [(0, 2048, 2048), (255, 2048, 255), (256, 256, 256)])
    def test_default_memory(self, home: Path, given: int, current: int, old: int) -> None:
        assert hypervisor(home, f"default_memory = {given}").memory_size == current
        assert hypervisor(home, f"default_memory = {given}", rest=OLD).memory_size == old

    @pytest.mark.parametrize(("given", "most"), [("0", 16000), ("4096", 4096), ("99999", 16000)])
    def test_default_maxmemory(self, home: Path, given: str, most: int) -> None:
        assert hypervisor(home, f"default_maxmemory = {given}").default_max_memory_size == most

    def test_small_limits(self, home: Path) -> None:
        config = hypervisor(
            home, "default_bridges = 9\nhypervisor_loglevel = 9\npcie_root_port = 99\npcie_switch_port = 99\n"
        )
        assert (config.default_bridges, config.hypervisor_loglevel) == (5, 3)
        assert (config.pcie_root_port, config.pcie_switch_port) == (16, 16)

    def test_lists_in_a_text_are_tidied(self, home: Path) -> None:
        config = hypervisor(home, 'cpu_features = " pmu=off,, +x2apic ,"\nmachine_accelerators = ",nosmm"')
        assert config.cpu_features == "pmu=off,+x2apic"
        assert config.machine_accelerators == "nosmm"

    def test_a_microvm_has_no_nvdimm(self, home: Path) -> None:
        assert hypervisor(home, 'machine_type = "microvm"').disable_image_nvdimm

    def test_paths_lose_their_links(self, home: Path) -> None:
        (home / "link").symlink_to(home / "initrd")
        assert hypervisor(home, f'firmware = "{home}/link"').firmware_path == f"{home}/initrd"

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ('firmware = "/no/fw"', "hypervisor.qemu.firmware: file /no/fw does not exist"),
            ('pflashes = ["/no/flash"]', "hypervisor.qemu.pflashes: file /no/flash does not exist"),
            (
                'block_device_driver = "ide"',
                "hypervisor.qemu.block_device_driver: Invalid hypervisor block storage driver ide specified (supported",
            ),
            (
                'block_device_aio = "sync"',
                "hypervisor.qemu.block_device_aio: Invalid hypervisor block storage I/O mechanism  sync specified (",
            ),
            ("default_memory = 2048.0", "hypervisor.qemu.default_memory: must be a whole number from 0 to"),
            ("default_vcpus = true", "hypervisor.qemu.default_vcpus: must be a number"),
            ("enable_debug = 1", "hypervisor.qemu.enable_debug: must be true or false, not 1"),
            ("pflashes = 'x'", "hypervisor.qemu.pflashes: must be a list"),
            ("enable_annotations = [1]", "hypervisor.qemu.enable_annotations[0]: must be a string"),
            ("default_vcpus = nan", "hypervisor.qemu.default_vcpus: must be a number"),
        ],
    )
    def test_a_fault_is_named_with_its_key(self, home: Path, line: str, problem: str) -> None:
        (said,) = problems(load, home, line)
        assert said.startswith(problem)

    def test_an_unknown_shared_fs(self, home: Path) -> None:
        (said,) = problems(load, home, shared_fs='shared_fs = "nfs"')
        assert said == (
            "hypervisor.qemu.shared_fs: Invalid hypervisor shared file system nfs specified "
            "(supported file systems: [virtio-9p virtio-fs virtio-fs-nydus none])"
        )

    def test_all_faults_are_told_at_once(self, home: Path) -> None:
        said = problems(load, home, "enable_debug = 1\ndefault_memory = -1", rest="[factory]\nvm_cache_number = 'x'")
        assert len(said) == 3

    def test_missing_files_are_named(self, home: Path) -> None:
        for name in ("qemu", "vmlinuz", "initrd"):
            (home / name).unlink()
        assert problems(load, home) == (
            f"hypervisor.qemu.path: file {home}/qemu does not exist",
            f"hypervisor.qemu.kernel: file {home}/vmlinuz does not exist",
            f"hypervisor.qemu.initrd: file {home}/initrd does not exist",
        )

    def test_an_initrd_must_fit_into_memory(self, home: Path) -> None:
        with (home / "initrd").open("wb") as initrd:
            initrd.truncate(300 * 2**20)
        hypervisor(home, "default_memory = 301")
        assert problems(load, home, "default_memory = 300") == (
            f'hypervisor.qemu.initrd: VM memory (300MB) smaller than image "{home}/initrd" size (300MB)',
        )

    def test_an_empty_initrd(self, home: Path) -> None:
        (home / "initrd").write_bytes(b"")
        assert problems(load, home) == (f'hypervisor.qemu.initrd: image "{home}/initrd" is empty',)

    def test_runtime_1x_wants_one_rootfs(self, home: Path) -> None:
        assert problems(load, home, f'image = "{home}/image"', rest=OLD)[0] == (
            "hypervisor.qemu.image: having both an image and an initrd defined in the configuration file is not "
            "supported"
        )
        assert problems(load, home, rootfs="firmware", rest=OLD)[-1] == (
            "hypervisor.qemu.image: either image or initrd must be defined in the configuration file"
        )


class TestKernelParameters:
    def test_katas_come_first_and_the_users_last(self, home: Path) -> None:
        config = hypervisor(
            home,
            'kernel_params = "agent.log=info quiet"',
            rootfs="image",
            rest="[agent.kata]\nenable_debug = true\nenable_tracing = true\ndebug_console_enabled = true\n"
            "cdh_api_timeout = 50\nlaunch_process_timeout = 6\nvisible_cdi_devices = true",
        )
        assert serialize_params(config.kernel_params) == (
            "systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service "
            "systemd.mask=systemd-networkd.socket scsi_mod.scan=none agent.log=debug agent.trace=true "
            "agent.debug_console agent.debug_console_vport=1026 agent.cdh_api_timeout=50 "
            "agent.launch_process_timeout=6 agent.visible_cdi_devices=true agent.log=info quiet"
        )

    def test_runtime_1x_traces_statically_only(self, home: Path) -> None:
        def params(mode: str) -> str:
            agent = f'[agent.kata]\nenable_tracing = true\ntrace_mode = "{mode}"\ntrace_type = "collated"\n'
            return serialize_params(hypervisor(home, rest=agent + OLD).kernel_params)

        assert params("static") == "scsi_mod.scan=none agent.trace=collated"
        assert params("dynamic") == "scsi_mod.scan=none"
        assert problems(params, "loud") == (
            'agent.kata.trace_mode: invalid kata agent trace mode: "loud" (need "dynamic" or "static")',
        )

    def test_other_drivers_are_not_scanned_for(self, home: Path) -> None:
        assert hypervisor(home, 'block_device_driver = "virtio-blk"').kernel_params == ()

    @pytest.mark.parametrize(
        ("line", "current", "old"),
        [
            ("a=b  c", ["a=b", "c"], ["a=b", "c"]),
            ("a=b=c", ["a=b=c"], ["a=b=c"]),
            ('a="b c" d', ['a="b c"', "d"], ['a="b', 'c"', "d"]),
            ('a="b c', ['a="b c'], ['a="b', "c"]),
            ("", [], []),
        ],
    )
    def test_quotes_hold_words_together(self, line: str, current: list[str], old: list[str]) -> None:
        for generation, words in ((Generation.CURRENT, current), (Generation.RUNTIME_1X, old)):
            params = parse_params(line, generation)
            assert [serialize_params((param,)) for param in params] == words
            assert all("=" not in param.key for param in params)


class TestAgent:
    def test_no_table(self, home: Path) -> None:
        assert load(home).factory.vm_config.agent_config == KataAgentConfig()

    def test_its_keys(self, home: Path) -> None:
        config = load(home, rest='[agent.kata]\ndial_timeout = 45\nkernel_modules = ["m"]').factory.vm_config
        assert config.agent_config == KataAgentConfig(dial_timeout=45, kernel_modules=("m",), long_live_conn=True)
        assert (config.agent_type, config.proxy_type) == ("", "")

    def test_the_two_programs_of_runtime_1x_make_different_configs(self, home: Path) -> None:
        agent = "[agent.kata]\nenable_debug = true\n"
        command = load(home, rest=agent + OLD).factory.vm_config
        assert command.agent_config == KataAgentConfig(debug=True)
        assert (command.agent_type, command.proxy_type) == ("kata", "kataProxy")
        shim = load(home, rest=agent + OLD, client=Client.SHIM).factory.vm_config
        assert shim.agent_config == KataAgentConfig(long_live_conn=True)
        assert (shim.agent_type, shim.proxy_type) == ("kata", "kataBuiltInProxy")

    @pytest.mark.parametrize("client", Client)
    def test_vsock_needs_no_proxy(self, home: Path, client: Client) -> None:
        config = load(home, "use_vsock = true", rest=OLD, client=client).factory.vm_config
        assert config.proxy_type == "noProxy"
        assert config.agent_config.use_vsock

    def test_runtime_1x_knows_one_agent(self, home: Path) -> None:
        assert problems(load, home, rest="[agent.hyperstart]\n" + OLD) == (
            "agent.hyperstart: hyperstart agent type is not supported",
        )


class TestFile:
    def test_unknown_keys_and_tables_are_passed_over(self, home: Path) -> None:
        load(home, "warp = 9", rest="[runtime]\nexperimental = []\nwarp = 9\n[factory]\nwarp = 9\n[netmon]\nx = 1")

    def test_drop_ins_lie_on_top_in_order_of_their_names(self, home: Path) -> None:
        (home / "config.d").mkdir()
        (home / "config.d" / "20-b.toml").write_text("[factory]\nvm_cache_number = 2")
        (home / "config.d" / "10-a.toml").write_text(
            "[factory]\nvm_cache_number = 1\n[hypervisor.qemu]\ndefault_memory = 512"
        )
        config = load(home, "default_memory = 1024\ndefault_bridges = 2").factory
        assert config.cache == 2
        assert config.vm_config.hypervisor_config.memory_size == 512
        assert config.vm_config.hypervisor_config.default_bridges == 2

    def test_unusable_files(self, home: Path) -> None:
        assert "cannot be read" in problems(load_runtime_config, home / "none.toml")[0]
        (home / "bad.toml").write_text("[")
        assert problems(load_runtime_config, home / "bad.toml")[0].startswith("not TOML: ")

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "hypervisor.qemu: vmpool runs QEMU only; the file needs this table"),
            ("hypervisor = 1", "hypervisor: must be a table"),
            ("[hypervisor.xen]", 'hypervisor.xen: configuration file contains invalid hypervisor section: "xen"'),
            ("[hypervisor]\nqemu = 1", "hypervisor.qemu: must be a table"),
            ("factory = 1", "factory: must be a table"),
        ],
    )
    def test_tables_that_are_none(self, home: Path, text: str, problem: str) -> None:
        (home / "c.toml").write_text(text)
        assert problem in problems(load_runtime_config, home / "c.toml")


class TestSettings:
    def test_no_cache_keeps_no_vms(self, home: Path) -> None:
        made = settings(home)
        (profile,) = made.settings.profiles.values()
        assert profile.size == 0
        assert profile.producer is ProducerKind.DIRECT
        assert not made.factory.vm_cache
        assert made.agent == "noop"

    def test_the_profile_is_katas_vm(self, home: Path) -> None:
        made = settings(
            home,
            'default_vcpus = 1.5\ndefault_memory = 512\nkernel_params = "x=y"\ncpu_features = "pmu=off"',
            rest='[factory]\nvm_cache_number = 3\nenable_template = true\ntemplate_path = "/t"',
        )
        (profile,) = made.settings.profiles.values()
        assert made.settings.profiles.keys() == {"default"}
        assert (profile.size, profile.producer) == (3, ProducerKind.TEMPLATE)
        assert (profile.vcpus, profile.max_vcpus, profile.memory_mib, profile.max_memory_mib) == (2, 4, 512, 16000)
        assert (profile.qemu, profile.kernel, profile.initrd) == (
            f"{home}/qemu",
            home / "vmlinuz",
            home / "initrd",
        )
        assert profile.kernel_parameters == "scsi_mod.scan=none x=y"
        assert profile.cpu_model == "max,pmu=off"
        assert profile.template_directory == Path("/t/vmpool"), "Kata's own template is not touched"

    def test_a_small_host(self, home: Path) -> None:
        """Kata lets a VM have more memory than the host."""
        made = settings_from_kata(write(home), host=HostSize(cpus=1, memory_mib=1024))
        profile = made.settings.profiles["default"]
        assert (profile.memory_mib, profile.max_memory_mib, profile.max_vcpus) == (2048, 2048, 1)

    def test_a_large_host(self, home: Path) -> None:
        made = settings_from_kata(write(home), host=HostSize(cpus=1024, memory_mib=4 * 2**20))
        profile = made.settings.profiles["default"]
        assert (profile.max_memory_mib, profile.max_vcpus) == (2**20, 240)

    @pytest.mark.parametrize("old", [False, True])
    def test_a_client_with_the_same_file_matches(self, home: Path, old: bool) -> None:
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
    def test_machines_that_cannot_be_made(self, home: Path, line: str, problem: str) -> None:
        assert problems(settings, home, line) == (problem,)

    def test_an_image_cannot_be_booted(self, home: Path) -> None:
        assert problems(settings, home, rootfs="image") == (
            "hypervisor.qemu.image: vmpool boots an initrd only; set initrd instead",
        )

    def test_g5_and_g6_katas_verdict_comes_along(self, home: Path) -> None:
        assert problems(settings, home, f'image = "{home}/image"')[0] == (
            "hypervisor.qemu: Image and initrd path cannot be both set"
        )
        path = home / "c.toml"
        path.write_text(f'[hypervisor.qemu]\npath = "{home}/qemu"\nkernel = "{home}/vmlinuz"\nshared_fs = "none"')
        assert problems(settings_from_kata, path) == ("hypervisor.qemu: Missing image and initrd path",)

    def test_templates_and_virtio_fs(self, home: Path) -> None:
        template = "[factory]\nenable_template = true\n"
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
            ({"qemu": 'cpu_features = "x y"'}, "hypervisor.qemu.cpu_features: must match"),
            ({"qemu": f'kernel_params = "{"x" * 2000}"'}, "hypervisor.qemu.kernel_params: Length of"),
        ],
    )
    def test_what_the_service_cannot_take_is_named_by_katas_key(
        self, home: Path, parts: dict[str, str], problem: str
    ) -> None:
        (said,) = problems(settings, home, **parts)
        assert said.startswith(problem)
