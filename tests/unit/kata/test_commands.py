"""`vmpool factory`, by the cases of Kata's own tests, over simulated VMs. Names begin with the case."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import click.testing
import pytest
import structlog.testing
import structlog.typing

from pool.cli.main import main
from pool.kata.cache.layer import VmCache
from pool.kata.factory.host import FactoryHost
from pool.settings.config import Settings
from tests.unit.kata.factories import Stage
from tests.unit.kata.kata_files import write

TEMPLATE = '[factory]\nenable_template = true\n[vmpool]\nagent = "builtin"\n'
Logs = list[structlog.typing.EventDict]
CACHE = '[factory]\nvm_cache_number = 1\nvm_cache_endpoint = "{home}/cache.sock"\n'


@pytest.fixture(autouse=True)
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Instead of QEMU."""
    one = Stage(boot_s=0.0)
    one.templates.build_s = one.templates.clone_s = 0.0

    @contextlib.asynccontextmanager
    async def simulated(_runtime: Path) -> AsyncIterator[FactoryHost]:
        yield one.host

    monkeypatch.setattr("pool.cli.factory.open_qemu_host", simulated)
    monkeypatch.setattr("pool.cli.factory.configure_logs", lambda: None)  # it is for the life of a process
    return one


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def run(*arguments: str, config: Path | None = None) -> click.testing.Result:
    named = () if config is None else ("--kata-config", str(config))
    return click.testing.CliRunner().invoke(main, ["factory", *arguments, *named])


def said(*arguments: str, config: Path, code: int = 0) -> str:
    done = run(*arguments, config=config)
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.fixture
def nothing(home: Path) -> Path:
    return write(home)


@pytest.fixture
def template(home: Path) -> Path:
    return write(home, rest=TEMPLATE)


@pytest.fixture
def cache(home: Path) -> Path:
    return write(home, rest=CACHE.format(home=home))


@pytest.mark.parametrize("command", ["init", "destroy", "status"])
def test_l1_without_a_config_nothing_is_done(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pool.cli.factory.DEFAULT_CONFIGS", (tmp_path / "configuration.toml",))
    done = run(command)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "invalid runtime config: no file found; name one with --kata-config" in done.stderr


def test_l1_a_config_that_is_wrong_names_its_key(home: Path) -> None:
    done = run("init", config=write(home, 'machine_type = "pc"'))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "invalid runtime config: " in done.stderr
    assert "hypervisor.qemu.machine_type" in done.stderr


def test_katas_own_place_is_looked_at(monkeypatch: pytest.MonkeyPatch, nothing: Path) -> None:
    monkeypatch.setattr("pool.cli.factory.DEFAULT_CONFIGS", (nothing.with_name("none"), nothing))
    assert run("init").stdout == "vm factory or VMCache is not enabled\n"


def test_l2_init_of_nothing(nothing: Path) -> None:
    assert said("init", config=nothing) == "vm factory or VMCache is not enabled\n"


def test_l3_init_of_a_template_leaves_it(template: Path, stage: Stage) -> None:
    assert said("init", config=template) == "vm factory initialized\n"
    assert stage.templates.template is not None
    assert not stage.vms.alive


@pytest.mark.logs_error("create vm factory failed")
def test_l3_init_of_a_template_that_is_there_already(template: Path, stage: Stage, logs: Logs) -> None:
    said("init", config=template)
    done = run("init", config=template)
    assert (done.exit_code, done.stdout) == (1, "")
    assert logs[-1]["event"] == "create vm factory failed"
    assert "There is already a VM template in /run/vc/vm/template" in done.stderr
    assert stage.templates.template is not None


@pytest.mark.logs_error("create vm factory failed")
def test_l3_init_of_a_template_that_cannot_be_made(template: Path, stage: Stage, logs: Logs) -> None:
    stage.templates.builds_fail = True
    done = run("init", config=template)
    assert (done.exit_code, done.stdout) == (1, "")
    assert logs[-1]["event"] == "create vm factory failed"
    assert "Traceback" not in done.stderr


RUNTIME_RS = "[hypervisor.qemu.factory]\nenable_template = true\n"


def test_l3_init_of_a_template_by_runtime_rs_table(home: Path, stage: Stage) -> None:
    """As `kata-ctl factory init`; it was passed over, with exit code 0."""
    done = run("init", config=write(home, rest=RUNTIME_RS))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "hypervisor.qemu.factory.enable_template: clones must be reseeded" in done.stderr
    config = write(home, rest=RUNTIME_RS + '[vmpool]\nagent = "builtin"\n')
    assert said("init", config=config) == "vm factory initialized\n"
    assert stage.templates.template is not None
    assert said("status", config=config) == "vm factory is on\n"
    assert said("destroy", config=config) == "vm factory destroyed\n"


def test_l4_destroy_without_and_with_a_template(nothing: Path, home: Path, stage: Stage, logs: Logs) -> None:
    assert said("destroy", config=nothing) == "vm factory destroyed\n"
    template = write(home, rest=TEMPLATE)
    done = run("destroy", config=template)
    assert (done.exit_code, done.stdout) == (0, "vm factory destroyed\n")
    assert logs[-1]["event"] == "load vm factory failed"
    said("init", config=template)
    assert said("destroy", config=template) == "vm factory destroyed\n"
    assert stage.templates.template is None


def test_l5_status_without_and_with_a_template(nothing: Path, home: Path, stage: Stage) -> None:
    assert said("status", config=nothing) == "vm factory not enabled\n"
    template = write(home, rest=TEMPLATE)
    assert said("status", config=template) == "vm factory is off\n"
    said("init", config=template)
    assert said("status", config=template) == "vm factory is on\n"
    assert stage.templates.template is not None, "asking does not destroy it"


def test_status_of_a_cache_without_a_server(cache: Path) -> None:
    first, second, *rest = said("status", config=cache).splitlines()
    assert first == "failed to call gRPC Status"
    assert second.startswith(": rpc error: code = Unavailable desc = ")
    assert rest == ["vm factory not enabled"]


def test_destroy_of_a_cache_without_a_server(cache: Path) -> None:
    done = run("destroy", config=cache)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "failed to call gRPC Quit: rpc error: code = Unavailable" in done.stderr


commands = pytest.mark.parametrize(
    "command",
    [pytest.param(("factory", "init"), marks=pytest.mark.logs_error("create vm factory failed")), ("serve",)],
)


@commands
def test_katas_texts_keep_their_blanks_on_the_way_out(
    home: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:

    async def opens_its_endpoint(_settings: Settings, _socket: Path, *, cache: VmCache, **_options: object) -> None:
        with cache.open_endpoint():
            raise AssertionError("something is there")

    monkeypatch.setattr("pool.cli.serve.configure_logs", lambda **_options: None)
    for module in ("factory", "serve"):
        monkeypatch.setattr(f"pool.cli.{module}.serve_until_signalled", opens_its_endpoint)
    endpoint = home / "cache.sock"
    endpoint.touch()
    config = write(home, rest=CACHE.format(home=home) + '[vmpool]\nchannel = "virtio-serial"\n')
    done = click.testing.CliRunner().invoke(main, [*command, "--kata-config", str(config)])
    assert f"{endpoint} already exist.  Please stop running VMCache server and remove {endpoint}" in done.stderr
    config = write(home, 'block_device_aio = "sync"')
    done = click.testing.CliRunner().invoke(main, [*command, "--kata-config", str(config)])
    assert "Invalid hypervisor block storage I/O mechanism  sync specified" in done.stderr


@commands
def test_neither_command_starts_what_no_client_could_use_and_names_the_users_key(
    home: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr("pool.cli.serve.configure_logs", lambda **_options: None)

    def outcome(qemu: str) -> str:
        config = write(home, f'machine_type = "q35"\n{qemu}', rest=CACHE.format(home=home) + "[proxy.kata]\n")
        done = click.testing.CliRunner().invoke(
            main, [*command, "--kata-config", str(config), "--socket", str(home / "socket")]
        )
        assert done.exit_code == {"factory": 1, "serve": 2}[command[0]]
        assert not (home / "cache.sock").exists()
        return done.stderr

    assert "hypervisor.qemu.use_vsock: " in outcome("")
    # Also what only the start finds out: the file is there, but no program.
    config = write(home, rest=CACHE.format(home=home) + '[vmpool]\nchannel = "virtio-serial"\n')
    done = click.testing.CliRunner().invoke(
        main, [*command, "--kata-config", str(config), "--socket", str(home / "run" / "socket")]
    )
    assert f"vmpool: hypervisor.qemu.path: {home}/qemu does not exist or cannot be read" in done.stderr


def test_factory_alone_is_help(nothing: Path) -> None:
    text = run("--help").stdout
    assert "Manage vm factory" in text
    for name, usage in (
        ("init", "Initialize a VM factory based on Kata's configuration."),
        ("destroy", "Destroy the VM factory"),
        ("status", "Query the status of VM factory."),
    ):
        assert name in text
        assert usage in " ".join(text.split())
