"""What makes two base VMs interchangeable, as one hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

import trio

from vmm.identity import content_hash
from vmm.qemu.command_line import BootFiles, Channels, VsockDevice, build_argv, inherited, needs_agent_port
from vmm.qemu.processors import needs_table
from vmm.qemu.version import QemuVersion
from vmm.spec import AgentChannel, MachineSpec

FORMAT: Final = 3
"""Goes up when a template of the same inputs would be another one, as with a change of what is done to it."""

_NUMBER: Final = 0
"""Of every descriptor: a real one is each VM's own."""


async def fingerprint(spec: MachineSpec, *, qemu_version: QemuVersion) -> str:
    """Hash over kernel, initrd, QEMU's program and version, accelerator, machine, CPU model, memory and command line.

    Reads the files in a thread, some 60 MB, and once: see `content_hash`. Raises OSError.
    """
    files = (spec.kernel, spec.initrd, spec.qemu)
    kernel, initrd, program = await trio.to_thread.run_sync(lambda: [content_hash(path) for path in files])
    # The command line holds all the rest; paths in it are places, not contents.
    argv = build_argv(
        spec, vm_id="vm", channels=_no_channels(spec), boot=BootFiles(kernel_fd=_NUMBER, initrd_fd=_NUMBER)
    )
    places = {str(spec.qemu), str(inherited(_NUMBER))}
    parts = {
        "format": FORMAT,
        "kernel": kernel,
        "initrd": initrd,
        # Its version says what it was built from, not how. And it finds firmware and modules beside itself.
        "qemu": [str(qemu_version), str(spec.qemu), program],
        "argv": [argument for argument in argv if argument not in places],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _no_channels(spec: MachineSpec) -> Channels:
    """Of the kinds that the machine has; their numbers are each VM's own."""
    return Channels(
        qmp_fd=_NUMBER,
        agent_fd=_NUMBER if needs_agent_port(spec) else None,
        vsock=VsockDevice(fd=_NUMBER, cid=0) if spec.channel is AgentChannel.VSOCK else None,
        processors_fd=_NUMBER if needs_table(spec) else None,
        console_fd=_NUMBER,
        console_log=Path("console"),
        place="",
    )
