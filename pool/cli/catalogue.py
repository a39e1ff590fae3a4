"""What commands there are, without importing them: `--help`, completion and `status` start fast by it."""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen
class Entry:
    """A command that is imported when it is called."""

    target: str
    """Module and attribute, separated by a colon."""
    summary: str
    """What it does, on one line."""


SECTIONS: Final = {
    "VMs and leases": {
        "run": Entry("pool.cli.execute:run", "Acquire a VM, run a command in it, release it."),
        "acquire": Entry("pool.cli.lease:acquire", "Acquire a VM and print its lease id."),
        "renew": Entry("pool.cli.lease:renew", "Extend a lease."),
        "release": Entry("pool.cli.lease:release", "End leases and destroy their VMs."),
    },
    "Processes and files of a lease": {
        "exec": Entry("pool.cli.execute:exec_", "Run a command in a leased VM."),
    },
    "Pools": {
        "status": Entry("pool.cli.status:status", "Show the service and its pools."),
        "watch": Entry("pool.cli.watch:watch", "Show changes in the pools as they happen."),
        "top": Entry("pool.cli.top:top", "Show pools, VMs, leases and latencies, live."),
        "metrics": Entry("pool.cli.metrics:metrics", "Show the service's metrics, in the text format of Prometheus."),
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
        "completion": Entry("pool.cli.completion.command:completion", "Print the completion of a shell."),
        "man": Entry("pool.cli.manual.command:man", "Show a manual page, or write all of them."),
    },
}

COMMANDS: Final = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
