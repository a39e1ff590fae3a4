"""What commands there are, without importing them: `--help`, completion and `status` start fast by it."""

from __future__ import annotations

from typing import Final, NamedTuple


class Entry(NamedTuple):
    """A command that is imported when it is called. No attrs class: attrs would be half of what --help waits for."""

    target: str
    """Module and attribute, separated by a colon."""
    summary: str
    """What it does, on one line."""


SECTIONS: Final = {
    "VMs and leases": {
        "run": Entry("pool.cli.execute:run", "Acquire a VM, run a command in it, release it."),
        "shell": Entry("pool.cli.execute:shell", "Work in a VM, new or leased, at its login shell."),
        "acquire": Entry("pool.cli.lease:acquire", "Acquire a VM and print its lease id."),
        "leases": Entry("pool.cli.leases:leases", "List leases."),
        "renew": Entry("pool.cli.lease:renew", "Extend a lease."),
        "release": Entry("pool.cli.lease:release", "End leases and destroy their VMs."),
        "mcp": Entry("pool.cli.mcp:mcp", "Serve VMs to a model, by the Model Context Protocol."),
    },
    "In a leased VM": {
        "exec": Entry("pool.cli.execute:exec_", "Run a command in a leased VM."),
        "cp": Entry("pool.cli.copy:cp", "Copy files and trees into a leased VM, or out of it."),
        "ls": Entry("pool.cli.files:ls", "List files of a leased VM."),
        "start": Entry("pool.cli.processes:start", "Start a process that goes on when the command ends."),
        "ps": Entry("pool.cli.processes:ps", "List processes of a leased VM."),
        "logs": Entry("pool.cli.processes:logs", "Print what a started process has written."),
        "attach": Entry("pool.cli.processes:attach", "Connect with a started process."),
        "kill": Entry("pool.cli.processes:kill", "Send a signal to a started process."),
        "forward": Entry("pool.cli.ports:forward", "Forward ports of a leased VM to this host, or the reverse."),
        "wait-port": Entry("pool.cli.ports:wait_port", "Wait until a server in a leased VM accepts connections."),
        "console": Entry("pool.cli.console:console", "Print the end of what a guest wrote to its console."),
    },
    "Pools": {
        "status": Entry("pool.cli.status:status", "Show the service and its pools."),
        "watch": Entry("pool.cli.watch:watch", "Show changes in the pools as they happen."),
        "top": Entry("pool.cli.top:top", "Show pools, VMs, leases and latencies, live."),
        "metrics": Entry("pool.cli.metrics:metrics", "Show what a leased VM uses, or the service's metrics."),
        "resize": Entry("pool.cli.administration:resize", "Change the size of a pool."),
        "drain": Entry("pool.cli.administration:drain", "Stop handing out VMs of a profile, and stop its idle VMs."),
        "undrain": Entry("pool.cli.administration:undrain", "End a drain."),
        "evict": Entry("pool.cli.administration:evict", "Stop an idle VM, or replace all idle VMs of a profile."),
        "reset": Entry("pool.cli.administration:reset", "Forget a profile's failures and retry now."),
    },
    "The service and its host": {
        "serve": Entry("pool.cli.serve:serve", "Keep VMs warm and hand them out; runs until SIGTERM or Ctrl-C."),
        "doctor": Entry("pool.cli.doctor:doctor", "Check this host, and suggest a fix for each problem."),
        "image": Entry("pool.cli.image:image", "Build or show the guest image."),
        "install-unit": Entry("pool.cli.install_unit:install_unit", "Write a systemd unit that starts this command."),
        "demo": Entry("pool.cli.demo:demo", "Start a service, acquire a VM, run a command, show the times, clean up."),
        "factory": Entry("pool.cli.factory:factory", "Manage vm factory, as kata-runtime does."),
        "completion": Entry("pool.cli.completion.command:completion", "Print a shell's script for completion."),
        "man": Entry("pool.cli.manual.command:man", "Show a manual page, or write all of them."),
    },
}

COMMANDS: Final = {name: entry for section in SECTIONS.values() for name, entry in section.items()}

WORDS_OF_OTHERS: Final = {
    "connect": "shell",
    "create": "acquire",
    "destroy": "release",
    "download": "cp",
    "enter": "shell",
    "get": "cp",
    "list": "leases",
    "port-forward": "forward",
    "put": "cp",
    "rm": "release",
    "ssh": "shell",
    "stats": "metrics",
    "stop": "release",
    "tunnel": "forward",
    "upload": "cp",
}
"""What other programs call our commands."""
