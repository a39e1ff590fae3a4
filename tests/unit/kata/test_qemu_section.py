"""Kata's configuration file: [hypervisor.qemu]."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool.kata.config.qemu_section import HostSize
from pool.kata.config.runtime_config import load_runtime_config
from pool.kata.records.hypervisor_config import HypervisorConfig, Param
from tests.unit.kata.kata_files import OLD, hypervisor, load, problems, write


def test_defaults(home: Path) -> None:
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


def test_runtime_1x_has_other_defaults(home: Path) -> None:
    config = hypervisor(home, shared_fs="", rest=OLD)
    assert config.hypervisor_machine_type == "pc"
    assert config.shared_fs == "virtio-9p"
    assert config.virtio_fs_cache == "none"


def test_virtio_fs_is_currents_default_and_needs_its_daemon(home: Path) -> None:
    assert problems(load, home, shared_fs="") == (
        "hypervisor.qemu.virtio_fs_daemon: cannot enable virtio-fs without daemon path in configuration file",
    )
    assert hypervisor(home, 'virtio_fs_daemon = "/d"', shared_fs="").shared_fs == "virtio-fs"


@pytest.mark.parametrize(
    ("given", "vcpus"), [("-1", 4.0), ("0", 1.0), ("1.5", 1.5), ("4", 4.0), ("4.5", 4.0), ("99", 4.0)]
)
def test_default_vcpus(home: Path, given: str, vcpus: float) -> None:
    assert hypervisor(home, f"default_vcpus = {given}").num_vcpus_f == vcpus


@pytest.mark.parametrize(("given", "most"), [("0", 4), ("2", 2), ("4", 4), ("99", 4)])
def test_default_maxvcpus(home: Path, given: str, most: int) -> None:
    assert hypervisor(home, f"default_maxvcpus = {given}").default_max_vcpus == most


def test_no_more_cpus_than_qemu_takes(home: Path) -> None:
    large = load_runtime_config(
        write(home, "default_vcpus = -1\ndefault_maxvcpus = 1000"), host=HostSize(cpus=512, memory_mib=16000)
    ).factory.vm_config.hypervisor_config
    assert (large.default_max_vcpus, large.num_vcpus_f) == (240, 240.0)


@pytest.mark.parametrize(("given", "current", "old"), [(0, 2048, 2048), (255, 2048, 255), (256, 256, 256)])
def test_default_memory(home: Path, given: int, current: int, old: int) -> None:
    assert hypervisor(home, f"default_memory = {given}").memory_size == current
    assert hypervisor(home, f"default_memory = {given}", rest=OLD).memory_size == old


@pytest.mark.parametrize(("given", "most"), [("0", 16000), ("4096", 4096), ("99999", 16000)])
def test_default_maxmemory(home: Path, given: str, most: int) -> None:
    assert hypervisor(home, f"default_maxmemory = {given}").default_max_memory_size == most
    assert hypervisor(home, f"default_maxmemory = {given}", rest=OLD).default_max_memory_size == 16000, "unknown to it"


def test_small_limits(home: Path) -> None:
    config = hypervisor(
        home, "default_bridges = 9\nhypervisor_loglevel = 9\npcie_root_port = 99\npcie_switch_port = 99\n"
    )
    assert (config.default_bridges, config.hypervisor_loglevel) == (5, 3)
    assert (config.pcie_root_port, config.pcie_switch_port) == (16, 16)
    assert hypervisor(home, "pcie_root_port = 99", rest=OLD).pcie_root_port == 99


def test_lists_in_a_text_are_tidied(home: Path) -> None:
    config = hypervisor(home, 'cpu_features = " pmu=off,, +x2apic ,"\nmachine_accelerators = ",nosmm"')
    assert config.cpu_features == "pmu=off,+x2apic"
    assert config.machine_accelerators == "nosmm"


def test_a_microvm_has_no_nvdimm(home: Path) -> None:
    assert hypervisor(home, 'machine_type = "microvm"').disable_image_nvdimm


def test_paths_lose_their_links(home: Path) -> None:
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
        ("default_memory = 2048.0", "hypervisor.qemu.default_memory: must be an integer from 0 to"),
        ("default_vcpus = true", "hypervisor.qemu.default_vcpus: must be a number"),
        ("enable_debug = 1", "hypervisor.qemu.enable_debug: must be true or false, not 1"),
        ("pflashes = 'x'", "hypervisor.qemu.pflashes: must be a list"),
        ("enable_annotations = [1]", "hypervisor.qemu.enable_annotations[0]: must be a string"),
        ("default_vcpus = nan", "hypervisor.qemu.default_vcpus: must be a number"),
    ],
)
def test_a_fault_is_named_with_its_key(home: Path, line: str, problem: str) -> None:
    (said,) = problems(load, home, line)
    assert said.startswith(problem)


PORTS = "allowed values no-port, bridge-port, root-port, switch-port"
MONITORS = "Invalid hypervisor extra monitor socket telnet specified (supported values: [hmp qmp qmp-pretty])"
SIZES = "must be 0 or a power of 2 between 512 and 65536"
LOGICAL, PHYSICAL = "block_device_logical_sector_size", "block_device_physical_sector_size"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('hot_plug_vfio = "root"', f"hot_plug_vfio: invalid vfio_port=<unknown PCIePort: root> setting, {PORTS}"),
        ('hot_plug_vfio = "invalid-port"', f"hot_plug_vfio: invalid vfio_port=invalid-port setting, {PORTS}"),
        ('cold_plug_vfio = "x"', f"cold_plug_vfio: invalid vfio_port=<unknown PCIePort: x> setting, {PORTS}"),
        (
            'hot_plug_vfio = "root-port"\ncold_plug_vfio = "switch-port"',
            "cold_plug_vfio: invalid hot-plug=root-port and cold-plug=switch-port settings, only one of them can be",
        ),
        ('extra_monitor_socket = "telnet"', f"extra_monitor_socket: {MONITORS}"),
        (f"{LOGICAL} = 513", f"{LOGICAL}: invalid {LOGICAL} 513: {SIZES}"),
        (f"{LOGICAL} = 256", f"{LOGICAL}: invalid {LOGICAL} 256: {SIZES}"),
        (f"{PHYSICAL} = 131072", f"{PHYSICAL}: invalid {PHYSICAL} 131072: {SIZES}"),
        (
            f"{LOGICAL} = 4096\n{PHYSICAL} = 512",
            f"{LOGICAL}: invalid sector sizes: logical (4096) must not be larger than physical (512)",
        ),
        ('pflashes = [""]', "pflashes: path must be specified"),
        ("disk_rate_limiter_bw_max_rate = true", "disk_rate_limiter_bw_max_rate: must be an integer from -"),
        ("jailer_path = 1", "jailer_path: must be a string, not 1"),
    ],
)
def test_what_current_kata_refuses_is_refused(home: Path, lines: str, problem: str) -> None:
    """None of it is a reason for runtime 1.x, which does not know these keys, but for the pflashes and the jailer."""
    (said,) = problems(load, home, lines)
    assert said.startswith(f"hypervisor.qemu.{problem}")
    if not lines.startswith(("pflashes", "jailer")):
        hypervisor(home, lines, rest=OLD)


def test_what_current_kata_takes_is_taken(home: Path) -> None:
    assert hypervisor(home, 'cold_plug_vfio = "root-port"').cold_plug_vfio == "root-port"
    assert hypervisor(home, 'hot_plug_vfio = "no-port"\ncold_plug_vfio = "bridge-port"').hot_plug_vfio == "no-port"
    assert hypervisor(home, 'machine_type = "microvm"\nhot_plug_vfio = "x"').hot_plug_vfio == "x", "it has no PCIe"
    assert hypervisor(home, 'extra_monitor_socket = "qmp-pretty"').extra_monitor_socket == "qmp-pretty"
    config = hypervisor(home, f"{LOGICAL} = 512\n{PHYSICAL} = 65536")
    assert (config.block_device_logical_sector_size, config.block_device_physical_sector_size) == (512, 65536)
    hypervisor(home, f"{LOGICAL} = 4096")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("default_vcpus = 1.5", "default_vcpus: must be an integer from -2147483648 to 2147483647, not 1.5"),
        ("default_vcpus = 1.0", "default_vcpus: must be an integer from"),
        ("memory_offset = 4294967296", "memory_offset: must be an integer from 0 to 4294967295"),
    ],
)
def test_what_runtime_1x_refuses_is_refused(home: Path, line: str, problem: str) -> None:
    (said,) = problems(load, home, line, rest=OLD)
    assert said.startswith(f"hypervisor.qemu.{problem}")
    hypervisor(home, line)


def test_runtime_1x_counts_whole_cpus(home: Path) -> None:
    for given, vcpus in ((0, 1), (3, 3), (-1, 4), (99, 4)):
        assert hypervisor(home, f"default_vcpus = {given}", rest=OLD).num_vcpus == vcpus


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("enable_numa = true", "hypervisor.qemu.enable_numa: vmpool's machines have no NUMA nodes; remove it"),
        (
            '[[hypervisor.qemu.guest_extension_images]]\nname = "gpu"\npath = "/x"',
            "hypervisor.qemu.guest_extension_images: vmpool's machines have no disks; remove it",
        ),
    ],
)
def test_what_vmpool_does_not_make_is_refused_by_name(home: Path, lines: str, problem: str) -> None:
    """Kata's client would compute what no VM of ours has."""
    assert problems(load, home, lines) == (problem,)
    hypervisor(home, lines, rest=OLD)


def test_what_is_off_is_no_obstacle(home: Path) -> None:
    hypervisor(home, 'enable_numa = false\nguest_extension_images = []\nnuma_mapping = ["0"]')


def test_keys_of_the_other_generation_are_passed_over(home: Path) -> None:
    hypervisor(home, "hot_plug_vfio = 1\nrootless = 1\nblock_device_aio = 'x'\nvirtio_fs_queue_size = 'x'", rest=OLD)
    hypervisor(home, "file_mem_backend = 1\nhotplug_vfio_on_root_bus = 1\nenable_swap = 1")


def test_an_unknown_shared_fs(home: Path) -> None:
    (said,) = problems(load, home, shared_fs='shared_fs = "nfs"')
    assert said == (
        "hypervisor.qemu.shared_fs: Invalid hypervisor shared file system nfs specified "
        "(supported file systems: [virtio-9p virtio-fs virtio-fs-nydus none])"
    )


def test_all_faults_are_told_at_once(home: Path) -> None:
    said = problems(load, home, "enable_debug = 1\ndefault_memory = -1", rest="[factory]\nvm_cache_number = 'x'")
    assert len(said) == 3


def test_missing_files_are_named(home: Path) -> None:
    for name in ("qemu", "vmlinuz", "initrd"):
        (home / name).unlink()
    assert problems(load, home) == (
        f"hypervisor.qemu.path: file {home}/qemu does not exist",
        f"hypervisor.qemu.kernel: file {home}/vmlinuz does not exist",
        f"hypervisor.qemu.initrd: file {home}/initrd does not exist",
    )


def test_an_initrd_must_fit_into_memory(home: Path) -> None:
    with (home / "initrd").open("wb") as initrd:
        initrd.truncate(300 * 2**20)
    hypervisor(home, "default_memory = 301")
    assert problems(load, home, "default_memory = 300") == (
        f'hypervisor.qemu.initrd: VM memory (300MB) smaller than image "{home}/initrd" size (300MB)',
    )


def test_an_empty_initrd(home: Path) -> None:
    (home / "initrd").write_bytes(b"")
    assert problems(load, home) == (f'hypervisor.qemu.initrd: image "{home}/initrd" is empty',)


def test_runtime_1x_wants_one_rootfs(home: Path) -> None:
    assert problems(load, home, f'image = "{home}/image"', rest=OLD)[0] == (
        "hypervisor.qemu.image: having both an image and an initrd defined in the configuration file is not supported"
    )
    assert problems(load, home, rootfs="firmware", rest=OLD)[-1] == (
        "hypervisor.qemu.image: either image or initrd must be defined in the configuration file"
    )
