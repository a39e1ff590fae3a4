"""The descriptors that a QEMU inherits: its channels and the files that it reads, so that it needs no path to them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from vmm.qemu import processors
from vmm.qemu.command_line import BootFiles, Passed
from vmm.qemu.confinement import Confinement
from vmm.qemu.directory import VmDirectory
from vmm.sockets import listen
from vmm.spec import MachineSpec


def open_passed(spec: MachineSpec, home: VmDirectory, confinement: Confinement, opened: contextlib.ExitStack) -> Passed:
    """The descriptors for every QEMU of this spec; the stack closes the service's.

    Raises OSError, SpecError, MissingFileError.
    """
    qmp_fd = opened.enter_context(listen(home.qmp_socket)).fileno()
    processors_fd = None
    if processors.needs_table(spec):
        processors_fd = opened.enter_context(_memory_file("processors", processors.table(spec)))
    devices = tuple(device.open(home.root, open_input=confinement.open_input, opened=opened) for device in spec.devices)
    return Passed(qmp_fd=qmp_fd, processors_fd=processors_fd, devices=devices)


def open_boot_files(spec: MachineSpec, confinement: Confinement, opened: contextlib.ExitStack) -> BootFiles:
    """The files that a guest boots from; the stack closes them. Raises OSError, MissingFileError."""
    return BootFiles(
        kernel_fd=opened.enter_context(confinement.open_input(spec.kernel)),
        initrd_fd=opened.enter_context(confinement.open_input(spec.initrd)),
    )


@contextlib.contextmanager
def _memory_file(name: str, data: bytes) -> Iterator[int]:
    """A file without a path, open within the block. QEMU can reopen it by its descriptor, whatever user it runs as."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield descriptor
    finally:
        os.close(descriptor)
