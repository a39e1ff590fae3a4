"""Kata's configuration file: the file itself, [factory] and [agent]."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool.kata.config.agent_table import Client
from pool.kata.config.runtime_config import load_runtime_config
from pool.kata.records.config import FactoryConfig, KataAgentConfig, ProxyConfig
from pool.kata.records.gokinds import Generation
from tests.unit.kata.kata_files import OLD, load, problems
from vmm.words.machines import AgentChannel


def test_unknown_keys_and_tables_are_passed_over(home: Path) -> None:
    load(home, "warp = 9", rest="[runtime]\nexperimental = []\nwarp = 9\n[factory]\nwarp = 9\n[netmon]\nx = 1")


def test_drop_ins_lie_on_top_in_order_of_their_names(home: Path) -> None:
    (home / "config.d").mkdir()
    (home / "config.d" / "20-b.toml").write_text("[factory]\nvm_cache_number = 2")
    (home / "config.d" / "10-a.toml").write_text(
        "[factory]\nvm_cache_number = 1\n[hypervisor.qemu]\ndefault_memory = 512"
    )
    config = load(home, "default_memory = 1024\ndefault_bridges = 2").factory
    assert config.cache == 2
    assert config.vm_config.hypervisor_config.memory_size == 512
    assert config.vm_config.hypervisor_config.default_bridges == 2


@pytest.mark.parametrize(
    ("runtime", "endpoint"),
    [
        ("", None),
        ('jaeger_endpoint = "http://jaeger:14268/api/traces"', None),
        ("enable_tracing = true", "http://localhost:4318"),
        ('enable_tracing = true\njaeger_endpoint = ""\njaeger_user = ""', "http://localhost:4318"),
        ('enable_tracing = true\njaeger_endpoint = "http://jaeger:14268/api/traces"', "http://jaeger:4318"),
        ('enable_tracing = true\njaeger_endpoint = "https://[::1]:14268/api/traces"', "https://[::1]:4318"),
    ],
)
def test_spans_go_to_jaegers_other_port(home: Path, runtime: str, endpoint: str | None) -> None:
    assert load(home, rest=f"[runtime]\n{runtime}").otlp_endpoint == endpoint


@pytest.mark.parametrize(
    ("runtime", "problem"),
    [
        ('jaeger_endpoint = "jaeger:14268"', "runtime.jaeger_endpoint: 'jaeger:14268' is not a URL"),
        ('jaeger_endpoint = "http://[x"', "runtime.jaeger_endpoint: "),
        ('jaeger_user = "me"', "runtime.jaeger_user: set credentials in the environment variable OTEL"),
        ('jaeger_password = "secret"', "runtime.jaeger_password: set credentials in the environment variable OTEL"),
    ],
)
def test_spans_that_cannot_go_there(home: Path, runtime: str, problem: str) -> None:
    (said,) = problems(load, home, rest=f"[runtime]\nenable_tracing = true\n{runtime}")
    assert said.startswith(problem)


def test_enable_tracing_of_the_wrong_type(home: Path) -> None:
    (said,) = problems(load, home, rest='[runtime]\nenable_tracing = "yes"')
    assert said.startswith("runtime.enable_tracing: ")


def test_unusable_files(home: Path) -> None:
    assert "cannot be read" in problems(load_runtime_config, home / "none.toml")[0]
    (home / "bad.toml").write_text("[")
    assert problems(load_runtime_config, home / "bad.toml")[0].startswith("not TOML: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "hypervisor.qemu: vmpool runs QEMU only; add this table to the file"),
        ("hypervisor = 1", "hypervisor: must be a table"),
        ("[hypervisor.xen]", 'hypervisor.xen: configuration file contains invalid hypervisor section: "xen"'),
        ("[hypervisor]\nqemu = 1", "hypervisor.qemu: must be a table"),
        ("factory = 1", "factory: must be a table"),
    ],
)
def test_tables_that_are_none(home: Path, text: str, problem: str) -> None:
    (home / "c.toml").write_text(text)
    assert problem in problems(load_runtime_config, home / "c.toml")


def test_without_a_factory_table_everything_is_off(home: Path) -> None:
    factory = load(home).factory
    assert (factory.template, factory.vm_cache, factory.cache) == (False, False, 0)
    assert factory.template_path == "/run/vc/vm/template"
    assert factory.vm_cache_endpoint == "/var/run/kata-containers/cache.sock"


def test_the_factorys_keys(home: Path) -> None:
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
        channel=AgentChannel.VSOCK,
    )


def test_empty_strings_are_the_defaults(home: Path) -> None:
    factory = load(home, rest='[factory]\ntemplate_path = ""\nvm_cache_endpoint = ""').factory
    assert factory.template_path == "/run/vc/vm/template"
    assert factory.vm_cache_endpoint == "/var/run/kata-containers/cache.sock"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("enable_template = 1", "factory.enable_template: must be true or false, not 1"),
        ("vm_cache_number = -1", "factory.vm_cache_number: must be an integer from 0 to 4294967295, not -1"),
        ('vm_cache_number = "2"', 'factory.vm_cache_number: must be an integer from 0 to 4294967295, not "2"'),
        ("vm_cache_endpoint = 1979-05-27", 'factory.vm_cache_endpoint: must be a string, not "1979-05-27"'),
    ],
)
def test_a_wrong_type_is_named_with_its_key(home: Path, line: str, problem: str) -> None:
    assert problems(load, home, rest=f"[factory]\n{line}") == (problem,)


def test_g1_without_templates_any_rootfs_will_do(home: Path) -> None:
    load(home)
    load(home, rootfs="image")


@pytest.mark.parametrize("generation", ["", OLD])
def test_g2_templates_of_an_initrd(home: Path, generation: str) -> None:
    assert load(home, rest=f"[factory]\nenable_template = true\n{generation}").factory.template


def test_g3_templates_of_an_image_are_refused_by_runtime_1x_only(home: Path) -> None:
    rest = "[factory]\nenable_template = true\n"
    assert load(home, rootfs="image", rest=rest).factory.template
    assert problems(load, home, rootfs="image", rest=rest + OLD) == (
        "factory.enable_template: Factory option enable_template requires an initrd image",
    )


def test_a_cache_needs_qemu(home: Path) -> None:
    path = home / "configuration.toml"
    path.write_text("[hypervisor.clh]\n[factory]\nvm_cache_number = 1")
    assert problems(load_runtime_config, path) == ("hypervisor: VM cache just support qemu",)


def test_without_a_table_for_the_agent(home: Path) -> None:
    assert load(home).factory.vm_config.agent_config == KataAgentConfig()


def test_the_agents_keys(home: Path) -> None:
    config = load(home, rest='[agent.kata]\ndial_timeout = 45\nkernel_modules = ["m"]').factory.vm_config
    assert config.agent_config == KataAgentConfig(dial_timeout=45, kernel_modules=("m",), long_live_conn=True)
    assert (config.agent_type, config.proxy_type) == ("", "")


def test_the_two_programs_of_runtime_1x_make_different_configs(home: Path) -> None:
    agent = "[agent.kata]\nenable_debug = true\n"
    command = load(home, rest=agent + OLD).factory.vm_config
    assert command.agent_config == KataAgentConfig(debug=True)
    assert (command.agent_type, command.proxy_type) == ("kata", "kataProxy")
    shim = load(home, rest=agent + OLD, client=Client.SHIM).factory.vm_config
    assert shim.agent_config == KataAgentConfig(long_live_conn=True)
    assert (shim.agent_type, shim.proxy_type) == ("kata", "kataBuiltInProxy")


@pytest.mark.parametrize("client", Client)
def test_vsock_needs_no_proxy(home: Path, client: Client) -> None:
    config = load(home, "use_vsock = true", rest=OLD + "[agent.kata]", client=client).factory.vm_config
    assert config.proxy_type == "noProxy"
    assert config.agent_config.use_vsock


def test_runtime_1x_knows_one_proxy_and_one_shim(home: Path) -> None:
    """Its shim for containerd looks at neither."""
    rest = "[proxy.cc]\n[shim.cc]\n"
    assert problems(load, home, rest=rest) == (
        "proxy.cc: cc proxy type not supported",
        "shim.cc: cc shim is not supported",
    )
    load(home, rest=rest, client=Client.SHIM)


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ("[proxy.kata]\npath = 1", "proxy.kata.path: must be a string, not 1"),
        ("[proxy.kata]\nenable_debug = 1", "proxy.kata.enable_debug: must be true or false, not 1"),
        ("[shim.kata]\nenable_tracing = 1", "shim.kata.enable_tracing: must be true or false, not 1"),
        ("[proxy]\nkata = 1", "proxy.kata: must be a table"),
        ("[[shim]]", "shim: must be a table"),
    ],
)
def test_wrong_types_in_them_are_named(home: Path, rest: str, problem: str) -> None:
    assert problems(load, home, rest=rest) == (problem,)


def test_what_the_proxy_is_started_with_is_told_and_nothing_of_it_is_looked_for(home: Path) -> None:
    rest = '[runtime]\nenable_debug = true\n[proxy.kata]\npath = "/no/../kata-proxy"\n'
    assert load(home, rest=rest).factory.vm_config.proxy_config == ProxyConfig(path="/kata-proxy")
    assert load(home, rest=rest + "enable_debug = true").factory.vm_config.proxy_config.debug
    assert load(home, rest=OLD).factory.vm_config.proxy_config == ProxyConfig(
        path="/usr/libexec/kata-containers/kata-proxy"
    )
    assert load(home, rest="[shim.kata]").factory.vm_config.proxy_config == ProxyConfig()
    without = ProxyConfig(debug=True)
    assert load(home, "use_vsock = true", rest=rest).factory.vm_config.proxy_config == without
    assert load(home, rest=rest, client=Client.SHIM).factory.vm_config.proxy_config == without


def test_the_agents_keys_of_the_other_generation_are_passed_over(home: Path) -> None:
    old = load(home, rest=OLD + '[agent.kata]\ndial_timeout = "x"\ndebug_console_enabled = 1').factory.vm_config
    assert old.agent_config == KataAgentConfig()
    current = load(home, rest="[agent.kata]\ntrace_mode = 1\nenable_tracing = true").factory.vm_config
    assert current.agent_config == KataAgentConfig(long_live_conn=True, trace=True)


def test_runtime_1x_without_a_table_for_the_agent_forgets_its_vsock(home: Path) -> None:
    """Kata's command does; its client's configuration must be the server's."""
    config = load(home, "use_vsock = true", rest=OLD).factory.vm_config
    assert (config.hypervisor_config.use_vsock, config.agent_config) == (True, KataAgentConfig())
    shim = load(home, "use_vsock = true", rest=OLD, client=Client.SHIM).factory.vm_config
    assert shim.agent_config.use_vsock


@pytest.mark.parametrize(
    ("qemu", "rest", "generation"),
    [
        pytest.param("", "[shim.kata]", Generation.RUNTIME_1X, id="shim"),
        pytest.param("", "[proxy.kata]", Generation.RUNTIME_1X, id="proxy"),
        pytest.param("use_vsock = true", "", Generation.RUNTIME_1X, id="use_vsock"),
        pytest.param("use_vsock = false", "", Generation.RUNTIME_1X, id="use_vsock-off"),
        pytest.param("", '[vmpool]\nkata = "runtime 1.x"', Generation.RUNTIME_1X, id="said"),
        pytest.param("", '[proxy.kata]\n[vmpool]\nkata = "current"', Generation.CURRENT, id="said-otherwise"),
        pytest.param("enable_swap = true", "[netmon]", Generation.CURRENT, id="early-kata-2-had-these-too"),
        pytest.param("", "", Generation.CURRENT, id="nothing"),
    ],
)
def test_whose_file_it_is(home: Path, qemu: str, rest: str, generation: Generation) -> None:
    """Two tables and one key ended with runtime 1.x. A file without any of them can say it."""
    config = load(home, qemu, rest=rest)
    assert config.generation is generation
    assert (config.factory.vm_config.agent_type == "kata") == (generation is Generation.RUNTIME_1X)


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ('[vmpool]\nkata = "1"', "vmpool.kata: must be one of 'runtime 1.x', 'current'"),
        ('[vmpool]\nagnet = "builtin"', "vmpool.agnet: is not a known key; the keys are agent, channel, kata"),
    ],
)
def test_our_own_table_has_no_unknown_keys(home: Path, rest: str, problem: str) -> None:
    """Kata's are passed over, as Kata does."""
    assert problems(load, home, rest=rest) == (problem,)


RUNTIME_RS = '[hypervisor.qemu.factory]\nenable_template = true\ntemplate_path = "/rs"\n'


def test_runtime_rs_has_its_table_elsewhere(home: Path) -> None:
    factory = load(home, rest=RUNTIME_RS).factory
    assert (factory.template, factory.template_path, factory.cache) == (True, "/rs", 0)
    off = load(home, rest=RUNTIME_RS.replace("true", "false")).factory
    assert (off.template, off.template_path) == (False, "/run/vc/vm/template")
    assert load(home, rest="[hypervisor.qemu.factory]\nenable_template = true").factory.template_path == (
        "/run/vc/vm/template"
    )
    both = load(home, rest=f'{RUNTIME_RS}[factory]\nenable_template = true\ntemplate_path = "/rs"').factory
    assert (both.template, both.template_path) == (True, "/rs")


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        (
            f'{RUNTIME_RS}[factory]\nenable_template = true\ntemplate_path = "/go"',
            "hypervisor.qemu.factory.template_path: differs from factory.template_path, '/go'; remove one table",
        ),
        (
            f"{RUNTIME_RS}vm_cache_number = 1",
            "hypervisor.qemu.factory.vm_cache_number: runtime-rs has no such key; set up a cache under [factory]",
        ),
        (
            RUNTIME_RS.replace("true", "1"),
            "hypervisor.qemu.factory.enable_template: must be true or false, not 1",
        ),
    ],
)
def test_runtime_rs_tables_that_cannot_be(home: Path, rest: str, problem: str) -> None:
    assert problems(load, home, rest=rest) == (problem,)


def test_its_table_is_one(home: Path) -> None:
    assert problems(load, home, "factory = 1") == ("hypervisor.qemu.factory: must be a table",)


@pytest.mark.parametrize("key", ["template_path", "vm_cache_endpoint"])
def test_no_path_has_a_nul(home: Path, key: str) -> None:
    assert problems(load, home, rest=f'[factory]\n{key} = "/a\\u0000b"') == (
        f"factory.{key}: a path cannot contain a NUL",
    )


def test_runtime_1x_knows_one_agent(home: Path) -> None:
    assert problems(load, home, rest="[agent.hyperstart]\n" + OLD) == (
        "agent.hyperstart: hyperstart agent type is not supported",
    )
