"""Entry point: commands are imported when they are called, so that `--help` and `status` start fast."""

from __future__ import annotations

import importlib
from typing import Final

import click

_COMMANDS: Final = {
    "serve": ("pool.cli.serve:serve", "Keep VMs warm and hand them out; runs until SIGTERM or Ctrl-C."),
    "run": ("pool.cli.execute:run", "Acquire a VM, run a command in it, release it."),
    "acquire": ("pool.cli.lease:acquire", "Take a VM; prints its lease."),
    "renew": ("pool.cli.lease:renew", "Let a lease live longer."),
    "release": ("pool.cli.lease:release", "End a lease; its VM is destroyed."),
    "exec": ("pool.cli.execute:exec_", "Run a command in a VM that you hold."),
    "status": ("pool.cli.status:status", "Show the service and its pools."),
    "image": ("pool.cli.image:image", "Build or show the guest image."),
    "doctor": ("pool.cli.doctor:doctor", "Check what this host can do, with a fix for what it cannot."),
    "demo": ("pool.cli.demo:demo", "Start a service, take a VM, run a command, show the times, clean up."),
}


class LazyGroup(click.Group):
    """Knows its commands by name and one line of help; imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - idem
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - idem
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vmpool")
def main() -> None:
    """A fresh virtual machine, now: vmpool keeps QEMU VMs warm and hands one out in milliseconds.

    The service's socket is --socket, else $VMPOOL_SOCKET, else $XDG_RUNTIME_DIR/vmpool/vmpool.sock, else
    /run/vmpool/vmpool.sock.
    """


if __name__ == "__main__":
    main()
