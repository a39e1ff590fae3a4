"""Configuration: TOML in, settings out, every fault named with the key's path."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool.settings.config import ConfigError, load_settings, parse_settings
from vmm.words.machines import AcceleratorSetting


def test_the_embedded_default_keeps_two_vms_of_one_profile() -> None:
    settings = load_settings(None)

    assert {name: profile.size for name, profile in settings.profiles.items()} == {"default": 2}
    assert settings.profiles["default"].accelerator is AcceleratorSetting.AUTO


def test_the_keys_shown_in_the_default_file_exist_and_show_their_defaults() -> None:
    """The commented keys are documentation; uncommented, they must mean what the code means."""
    text = (Path(__file__).parents[3] / "pool" / "default.toml").read_text()
    examples = (
        "kernel =",
        "initrd =",
        "_directory",
        "socket_group =",
        "no limit",
        "default: never",
        "default: 4 *",
        "of CPUs",
    )
    shown = "\n".join(
        line.removeprefix("# ") for line in text.splitlines() if not any(example in line for example in examples)
    ).partition("[profiles.default.adaptive]")[0]
    shown = shown[shown.index("[service]") :]

    assert parse_settings(shown, source="shown").profiles["default"] == load_settings(None).profiles[
        "default"
    ].__class__(max_vcpus=1, max_memory_mib=256)
    assert parse_settings(shown, source="shown").limits == load_settings(None).limits


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[profiles.a]\nvcpu = 2", "profiles.a: unknown key: vcpu"),
        ("[service]\nport = 1\n[profiles.a]", "service: unknown key: port"),
        ("[profiles.a]\nsize = '2'", "profiles.a.size: must be a whole number, not '2'"),
        ("[profiles.a]\nsize = true", "profiles.a.size: must be a whole number, not True"),
        ("[profiles.a]\nsize = -1", "profiles.a.size: must be >= 0: -1"),
        ("[profiles.a]\nvcpus = 0", "profiles.a.vcpus: must be >= 1: 0"),
        ("[profiles.a]\nvcpus = 100000", "profiles.a.vcpus: must be <= 240: 100000"),
        ("[profiles.a]\nmemory_mib = 0", "profiles.a.memory_mib: must be >= 64: 0"),
        ("[profiles.a]\nmemory_mib = 99999999", "profiles.a.memory_mib: must be <= 1048576: 99999999"),
        ("[profiles.a]\nmax_vcpus = 0", "profiles.a.max_vcpus = 0: must be between vcpus (1) and 240"),
        (
            "[profiles.a]\nmemory_mib = 192\nmax_memory_mib = 512",
            (
                "profiles.a.max_memory_mib: 512 cannot be reached from memory_mib (192) in blocks of 128 MiB; "
                "set 448 or 576"
            ),
        ),
        (
            "[profiles.a]\nmax_memory_mib = 300",
            (
                "profiles.a.max_memory_mib: 300 cannot be reached from memory_mib (256) in blocks of 128 MiB; "
                "set 256 or 384"
            ),
        ),
        ("[profiles.a]\nkernel = 3", "profiles.a.kernel: must be a string, not 3"),
        ("[profiles.a]\naccelerator = 'xen'", "profiles.a.accelerator: must be one of 'auto', 'kvm', 'tcg'"),
        ("[profiles.a]\nhand_out_timeout_s = 601", "profiles.a.hand_out_timeout_s: must be <= 600: 601.0"),
        ("[profiles.a]\nboot_timeout_s = 0", "profiles.a.boot_timeout_s: must be > 0: 0.0"),
        ("[profiles.a]\nkernel = '/k'", "profiles.a: kernel and initrd go together"),
        ("[profiles.Not_OK]", "profiles.Not_OK: not a profile name"),
        ("[profiles.a]\nagent = 'ssh'", "profiles.a.agent: must be one of 'builtin', 'qga', 'noop'"),
        ("[profiles.a]\nagent = 'qga'", "profiles.a.agent: the built guest image is for the built-in agent"),
        ("[profiles.a]\nagent = 'noop'\nproducer = 'template'", "profiles.a.agent: clones must be reseeded"),
        ("[profiles.a]\nagent = 'noop'\nmax_vcpus = 2", 'profiles.a.agent: "noop" does not bring added CPUs'),
        ("[profiles.a]\nagent = 'noop'\nstrict_uniqueness = true", 'profiles.a.agent: "noop" cannot read random bytes'),
        (
            "[profiles.a]\nagent = 'qga'\nchannel = 'vsock'",
            "profiles.a.channel = 'vsock': qemu-ga does not answer there",
        ),
        ("[profiles.a]\nadaptive = 1", "profiles.a.adaptive: must be a table"),
        ("[profiles.a]\nqemu = ''", "profiles.a.qemu: must match"),
        ("[profiles.a]\ncpu_model = 'help'", "profiles.a.cpu_model: is not a CPU model; name one of QEMU's"),
        ("[profiles.a]\ncpu_model = 'max,?'", "profiles.a.cpu_model: has '?', which is not a feature"),
        ('[profiles.a]\nqemu = "a\\u0000b"', "profiles.a.qemu: must match"),
        (
            "[profiles.a]\nbackoff_initial_s = 20\nbackoff_maximum_s = 1",
            "profiles.a.backoff_initial_s: 20 is more than backoff_maximum_s (1); lower it, or raise backoff_maximum_s",
        ),
        ('[profiles.a]\n[access]\nusers = ["a\\u0000"]', "access.users: must be a name or a number"),
        (
            "[profiles.a]\n[access]\ngroups = [0]\nsocket_group = 4294967295",
            "access.socket_group: must be a name or a number",
        ),
        ('[profiles.a]\n[service]\nqemu_user = "\\u0000"', "service.qemu_user: must be a name or a number"),
        ("profiles = 3", "profiles: must be a table"),
        ("[profiles]\na = 3", "profiles.a: must be a table"),
        ("[profiles]", "profiles: at least one"),
        ("", "profiles: required key is missing"),
        ("profiles = [", "not TOML: "),
    ],
)
def test_a_fault_is_named_with_its_key(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, source="vmpool.toml")

    assert any(said.startswith(problem) for said in caught.value.problems), caught.value.problems
    assert str(caught.value).startswith("vmpool.toml: ")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings("[profiles.a]\nsize = '2'\nvcpu = 1\n[profiles.b]\nmemory_mib = 1.5", source="vmpool.toml")

    assert len(caught.value.problems) == 3


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "missing.toml")
