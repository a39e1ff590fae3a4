"""Entry point. A command is imported when it is called, so that `--help` and `status` start fast."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import signal
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import click

from pool.cli.streams import (
    STDOUT,
    NobodyReadsError,
    abandon,
    flush_or_abandon_output,
    prepare_output,
    reserve_standard_descriptors,
)

_COMMANDS: Final = {
    "serve": ("pool.cli.serve:serve", "Keep VMs warm and hand them out; runs until SIGTERM or Ctrl-C."),
    "run": ("pool.cli.execute:run", "Acquire a VM, run a command in it, release it."),
    "acquire": ("pool.cli.lease:acquire", "Acquire a VM and print its lease id."),
    "renew": ("pool.cli.lease:renew", "Extend a lease."),
    "release": ("pool.cli.lease:release", "End leases and destroy their VMs."),
    "exec": ("pool.cli.execute:exec_", "Run a command in a leased VM."),
    "status": ("pool.cli.status:status", "Show the service and its pools."),
    "watch": ("pool.cli.watch:watch", "Show changes in the pools as they happen."),
    "metrics": ("pool.cli.metrics:metrics", "Show the service's metrics, in the text format of Prometheus."),
    "top": ("pool.cli.top:top", "Show pools, VMs, leases and latencies, live."),
    "resize": ("pool.cli.administration:resize", "Change the size of a pool."),
    "drain": ("pool.cli.administration:drain", "Stop handing out VMs of a profile, and stop its idle VMs."),
    "undrain": ("pool.cli.administration:undrain", "End a drain."),
    "evict": ("pool.cli.administration:evict", "Stop an idle VM, or replace all idle VMs of a profile."),
    "reset": ("pool.cli.administration:reset", "Forget a profile's failures and retry now."),
    "factory": ("pool.cli.factory:factory", "Manage vm factory, as kata-runtime does."),
    "image": ("pool.cli.image:image", "Build or show the guest image."),
    "doctor": ("pool.cli.doctor:doctor", "Check this host, and suggest a fix for each problem."),
    "install-unit": ("pool.cli.install_unit:install_unit", "Write a systemd unit that starts this command."),
    "mcp": ("pool.cli.mcp:mcp", "Serve VMs to a model, by the Model Context Protocol."),
    "demo": ("pool.cli.demo:demo", "Start a service, acquire a VM, run a command, show the times, clean up."),
}


def _import(name: str) -> ModuleType:
    """Imports a module, and exempts it from garbage collection, which would take a fifth of a short command's time."""
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


class LazyGroup(click.Group):
    """Lists commands by name and one line of help, and imports a command when it is called. More can be added."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """As click's, but exits with 130 on an interrupt, as in a shell, and reports output that cannot be written."""
        reserve_standard_descriptors()
        prepare_output()
        atexit.register(gc.freeze)  # the process ends: collecting cycles is a waste
        try:
            code = super().main(*args, **(extra | {"standalone_mode": False}))
            sys.stdout.flush()
        except click.ClickException as error:
            with contextlib.suppress(OSError):  # stderr cannot be written to
                error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            abandon(STDOUT)
            _remark("interrupted")
            code = 130
        except (NobodyReadsError, BrokenPipeError):
            code = 128 + signal.SIGPIPE
        except OSError as error:
            _remark(f"{error.strerror}: {error.filename or 'standard output'}")
            code = 1
        finally:
            flush_or_abandon_output()
        sys.exit(code if isinstance(code, int) else 0)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _keeping_broken_pipes():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _keeping_broken_pipes():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*_COMMANDS, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - idem
        if cmd_name not in _COMMANDS:
            return self.commands.get(cmd_name)
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(_import(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - idem
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@contextlib.contextmanager
def _keeping_broken_pipes() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise NobodyReadsError from error


def _remark(text: str) -> None:
    with contextlib.suppress(OSError):  # stderr cannot be written to, so there is no way to report it
        click.echo(f"vmpool: {text}", err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vmpool")
def main() -> None:
    """A fresh virtual machine, now: vmpool keeps QEMU VMs warm and hands them out in milliseconds.

    The service's socket is --socket, else $VMPOOL_SOCKET, else $XDG_RUNTIME_DIR/vmpool/vmpool.sock, else
    /run/vmpool/vmpool.sock.
    """


if __name__ == "__main__":
    main()
