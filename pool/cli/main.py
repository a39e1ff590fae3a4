"""Entry point: commands are imported when they are called, so that `--help` and `status` start fast."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import sys
from types import ModuleType
from typing import Any, Final, TextIO

import click

_COMMANDS: Final = {
    "serve": ("pool.cli.serve:serve", "Keep VMs warm and hand them out; runs until SIGTERM or Ctrl-C."),
    "run": ("pool.cli.execute:run", "Acquire a VM, run a command in it, release it."),
    "acquire": ("pool.cli.lease:acquire", "Take a VM; prints its lease."),
    "renew": ("pool.cli.lease:renew", "Let a lease live longer."),
    "release": ("pool.cli.lease:release", "End a lease; its VM is destroyed."),
    "exec": ("pool.cli.execute:exec_", "Run a command in a VM that you hold."),
    "status": ("pool.cli.status:status", "Show the service and its pools."),
    "watch": ("pool.cli.watch:watch", "Show what happens in the pools, as it happens."),
    "resize": ("pool.cli.administration:resize", "Give a pool another size."),
    "drain": ("pool.cli.administration:drain", "Hand out no more of a profile, and stop its idle VMs."),
    "resume": ("pool.cli.administration:resume", "End a drain."),
    "evict": ("pool.cli.administration:evict", "Stop an idle VM, or replace all of a profile."),
    "reset": ("pool.cli.administration:reset", "Forget a profile's failures and try again now."),
    "factory": ("pool.cli.factory:factory", "Manage vm factory, as kata-runtime does."),
    "image": ("pool.cli.image:image", "Build or show the guest image."),
    "doctor": ("pool.cli.doctor:doctor", "Check what this host can do, with a fix for what it cannot."),
    "install-unit": ("pool.cli.install_unit:install_unit", "Write a systemd unit that starts this command."),
    "bench": ("pool.cli.bench:bench", "Measure this host and this revision, beside baselines; from a checkout."),
    "demo": ("pool.cli.demo:demo", "Start a service, take a VM, run a command, show the times, clean up."),
}


def _import(name: str) -> ModuleType:
    """Modules are no garbage, now or later: looking for some among them would take a fifth of a short command."""
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


class LazyGroup(click.Group):
    """Knows its commands by name and one line of help; imports one when it is called."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """As click's, but an interrupt is 130, as in a shell, and an output that cannot be written to is told."""
        _reserve_standard_descriptors()
        atexit.register(gc.freeze)  # all of it is about to go, cycles or not
        try:
            code = super().main(*args, **(extra | {"standalone_mode": False}))
            _flush_stdout()
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            click.echo("vmpool: interrupted", err=True)
            sys.exit(130)
        except BrokenPipeError:
            sys.exit(128 + signal.SIGPIPE)
        except OSError as error:
            click.echo(f"vmpool: {error.strerror}: {error.filename or 'standard output'}", err=True)
            sys.exit(1)
        finally:
            _flush_or_abandon_stdout()
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - idem
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(_import(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - idem
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _reserve_standard_descriptors() -> None:
    """Closed ones stay of no use, but are taken: else the next thing opened, a socket say, would pass for stdout."""
    for descriptor, useless_mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, useless_mode)  # the lowest free number: this one


def _flush_stdout() -> None:
    stdout: TextIO | None = sys.stdout  # there is none if it was closed when we were started
    if stdout is not None:
        stdout.flush()


def _flush_or_abandon_stdout() -> None:
    """Else the interpreter would try once more at its end, and make the exit code its own."""
    try:
        _flush_stdout()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vmpool")
def main() -> None:
    """A fresh virtual machine, now: vmpool keeps QEMU VMs warm and hands one out in milliseconds.

    The service's socket is --socket, else $VMPOOL_SOCKET, else $XDG_RUNTIME_DIR/vmpool/vmpool.sock, else
    /run/vmpool/vmpool.sock.
    """


if __name__ == "__main__":
    main()
