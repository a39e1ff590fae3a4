"""Kata's configuration file: whatever is in it, it is settings of the service or a ConfigError with keys."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.kata.cache.wire import config_from_grpc, config_to_grpc
from pool.kata.config.qemu_section import HostSize
from pool.kata.config.runtime_config import load_runtime_config
from pool.kata.config.settings import settings_from_kata
from pool.kata.records.gojson import fields_of
from pool.kata.records.hypervisor_config import HypervisorConfig
from pool.kata.records.matching import check_config
from pool.settings.config import ConfigError
from tests.examples import examples

HOST = HostSize(cpus=4, memory_mib=16000)

SPELT_OTHERWISE = [
    "cpu_features",
    "default_bridges",
    "default_maxmemory",
    "default_maxvcpus",
    "default_memory",
    "default_vcpus",
    "enable_numa",
    "enable_debug",
    "enable_hugepages",
    "enable_iommu",
    "enable_swap",
    "enable_virtio_mem",
    "entropy_source",
    "factory",
    "file_mem_backend",
    "firmware",
    "firmware_volume",
    "guest_extension_images",
    "image",
    "initrd",
    "kernel",
    "memory_offset",
    "memory_slots",
    "path",
    "pflashes",
    "seccompsandbox",
    "tdx_quote_generation_service_socket_port",
    "valid_entropy_sources",
    "valid_hypervisor_paths",
    "disk_rate_limiter_bw_max_rate",
]
QEMU_KEYS = sorted({field.attribute for field in fields_of(HypervisorConfig)}.union(SPELT_OTHERWISE))
"""Many keys have the name of their field."""

OTHERS = {
    "factory": ("enable_template", "template_path", "vm_cache_number", "vm_cache_endpoint"),
    "runtime": ("enable_debug", "enable_tracing", "jaeger_endpoint", "jaeger_user"),
    "vmpool": ("agent", "channel", "kata", "typo"),
    "proxy": ("kata", "other"),
    "shim": ("kata", "other"),
    "agent": ("kata", "other"),
}

WORDS = st.sampled_from(
    ["", "x", "a=b =c", "q35", "pc", "virtio-9p", "none", "qga", "builtin", "vsock", "runtime 1.x", "root-port", "\0"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**70) | st.floats() | WORDS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["enable_template", "template_path", "path", "enable_debug", "x"]), inner)
    ),
    max_leaves=4,
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(content)}" for key, content in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str | bool):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def tables(home: Path) -> st.SearchStrategy[dict[str, Any]]:
    """Mostly what can be read, and a few keys of anything."""
    sound = {"path": f"{home}/f", "kernel": f"{home}/f", "initrd": f"{home}/f", "shared_fs": "none"}
    qemu = st.dictionaries(st.sampled_from(QEMU_KEYS), VALUES, max_size=3).map(
        lambda odd: {"machine_type": "q35"} | sound | odd
    )
    others = st.fixed_dictionaries(
        {}, optional={name: st.dictionaries(st.sampled_from(keys), VALUES, max_size=2) for name, keys in OTHERS.items()}
    )
    return st.builds(lambda machine, rest: {"hypervisor": {"qemu": machine}} | rest, qemu, others)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vmpool-") as place:
        (Path(place) / "f").write_bytes(b"x")
        yield Path(place)


@examples(60)
@given(data=st.data())
def test_anything_is_settings_or_a_config_error(home: Path, data: st.DataObject) -> None:
    drawn = data.draw(tables(home))
    path = home / "configuration.toml"
    path.write_text("\n".join(f"{name} = {toml(table)}" for name, table in drawn.items()), encoding="utf-8")
    try:
        kata = settings_from_kata(path, host=HOST)
        kata.check_clients()
    except ConfigError as error:
        said = error.problems
    else:
        said = ()
        if kata.cache is not None:
            received = config_from_grpc(config_to_grpc(kata.cache.vm_config))
            clients = load_runtime_config(path, host=HOST).factory.vm_config.valid(kata.generation)
            check_config(received, clients, generation=kata.generation)
    assert not any(problem.startswith("not TOML") for problem in said)
