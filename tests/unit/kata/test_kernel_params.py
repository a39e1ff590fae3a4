"""The guest's kernel parameters as Kata's loader puts them together."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool.kata.config.kernel_params import parse_params, serialize_params
from pool.kata.records.gokinds import Generation
from tests.unit.kata.kata_files import OLD, hypervisor, problems


def test_katas_come_first_and_the_users_last(home: Path) -> None:
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


def test_runtime_1x_traces_statically_only(home: Path) -> None:
    def params(mode: str) -> str:
        agent = f'[agent.kata]\nenable_tracing = true\ntrace_mode = "{mode}"\ntrace_type = "collated"\n'
        return serialize_params(hypervisor(home, rest=agent + OLD).kernel_params)

    assert params("static") == "scsi_mod.scan=none agent.trace=collated"
    assert params("dynamic") == "scsi_mod.scan=none"
    assert problems(params, "loud") == (
        'agent.kata.trace_mode: invalid kata agent trace mode: "loud" (need "dynamic" or "static")',
    )


def test_other_drivers_are_not_scanned_for(home: Path) -> None:
    assert hypervisor(home, 'block_device_driver = "virtio-blk"').kernel_params == ()


@pytest.mark.parametrize("generation", ["", OLD])
def test_a_parameter_has_a_name(home: Path, generation: str) -> None:
    said = problems(hypervisor, home, 'kernel_params = "a =x b= = c"', rest=generation)
    assert said == tuple(
        f"hypervisor.qemu.kernel_params: Empty kernel parameter: {word!r} has no name" for word in ("=x", "=")
    )


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
def test_quotes_hold_words_together(line: str, current: list[str], old: list[str]) -> None:
    for generation, words in ((Generation.CURRENT, current), (Generation.RUNTIME_1X, old)):
        params = parse_params(line, generation)
        assert [serialize_params((param,)) for param in params] == words
        assert all("=" not in param.key for param in params)
