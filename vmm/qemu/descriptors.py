"""What a QEMU inherits open: its channels, and the files that it reads. It need not be able to reach any by a path."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from vmm.identity import place_of
from vmm.qemu import processors
from vmm.qemu.command_line import BootFiles, Channels, needs_agent_port
from vmm.qemu.confinement import Confinement
from vmm.qemu.directory import VmDirectory, listen, new_log
from vmm.qemu.vsock import reserve_vsock
from vmm.spec import AgentChannel, MachineSpec


def open_channels(spec: MachineSpec, home: VmDirectory, opened: contextlib.ExitStack) -> Channels:
    """What every QEMU of this spec is given; the stack closes our ends of it. Raises OSError, SpecError."""
    qmp_fd = opened.enter_context(listen(home.qmp_socket)).fileno()
    console_fd = opened.enter_context(new_log(home.console_log))
    agent_fd = vsock = processors_fd = None
    if needs_agent_port(spec):
        agent_fd = opened.enter_context(listen(home.agent_socket)).fileno()
    elif spec.channel is AgentChannel.VSOCK:
        vsock = opened.enter_context(reserve_vsock())
    if processors.needs_table(spec):
        processors_fd = opened.enter_context(_memory_file("processors", processors.table(spec)))
    return Channels(
        qmp_fd=qmp_fd,
        agent_fd=agent_fd,
        vsock=vsock,
        processors_fd=processors_fd,
        console_fd=console_fd,
        console_log=home.console_log,
        place=place_of(home.root),
    )


def open_boot_files(spec: MachineSpec, confinement: Confinement, opened: contextlib.ExitStack) -> BootFiles:
    """What a guest boots from; the stack closes it. Raises OSError, MissingFileError."""
    return BootFiles(
        kernel_fd=opened.enter_context(confinement.open_input(spec.kernel)),
        initrd_fd=opened.enter_context(confinement.open_input(spec.initrd)),
    )


@contextlib.contextmanager
def _memory_file(name: str, data: bytes) -> Iterator[int]:
    """A file that is nowhere, open within the block. QEMU opens it anew by its descriptor, whoever it runs as."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield descriptor
    finally:
        os.close(descriptor)
