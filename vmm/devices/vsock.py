"""A vsock device: a CID of its own for each VM, and connections to the agent that listens behind it.

vhost-vsock keeps CIDs unique on the whole host, for all users' VMs. So a CID is drawn and tried on the descriptor that
QEMU then inherits: it is taken from that moment on, and free again when QEMU is dead.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final

import attrs
import trio

from vmm.devices.device import Attachment, Bus, Device, OpenInput
from vmm.devices.options import options
from vmm.errors import AgentUnreachableError, MissingFileError, SpecError
from vmm.words.machines import AgentKind
from vmm.words.processes import ExitReport

VSOCK_PARAMETER: Final = "VMPOOL_CHANNEL=vsock"
"""Makes the built-in agent listen on vsock. The kernel passes unknown parameters to `init` as variables."""

AGENT_PORT: Final = 1024
"""Where the built-in agent listens; Kata's, too."""

FIRST_CID: Final = 3
LAST_CID: Final = 2**32 - 2
"""0 to 2 are the hypervisor, loopback and the host, 2**32 - 1 is "any"."""

VHOST_VSOCK: Final = Path("/dev/vhost-vsock")
LOAD_MODULE: Final = "load the module with `modprobe vhost_vsock` and get access to the device"
_REMEDY: Final = f'{LOAD_MODULE}, or set channel = "virtio-serial"'
_SET_GUEST_CID: Final = 0x4008AF60
"""VHOST_VSOCK_SET_GUEST_CID of linux/vhost.h."""

_DRAWS: Final = 64
"""Draws of 2**32 CIDs; if so many in a row are taken, something is wrong with the host."""

_FIRST_PAUSE_S: Final = 0.005
_LAST_PAUSE_S: Final = 0.1

_NOT_YET: Final = frozenset({errno.ECONNRESET, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.ENODEV, errno.EHOSTUNREACH})
"""Errors of connecting while the guest boots: no driver, or no listener."""

_DRIVER: Final = "vhost-vsock-pci"

_OURS: Final = "vsock"
"""The id of the device behind which the built-in agent listens. A device for a VM's taker has Kata's name, with its
CID."""


@attrs.frozen(kw_only=True)
class ReservedCid:
    """An open /dev/vhost-vsock that has been given a CID."""

    fd: int
    cid: int


@attrs.frozen(kw_only=True)
class Vsock(Device):
    """The vsock device of a machine; the kernel allows one."""

    setting: ClassVar[str] = "channel"
    bus: ClassVar[Bus] = Bus.PCI

    ours: bool = True
    """The built-in agent listens behind it. If false, the listener is for the VM's taker."""

    @property
    def agent(self) -> AgentKind:
        return AgentKind.BUILTIN if self.ours else AgentKind.NOOP

    @property
    def kernel_parameters(self) -> str:
        return VSOCK_PARAMETER if self.ours else ""

    def check(self, open_input: OpenInput) -> None:  # noqa: ARG002 - it reads nothing
        check_vsock()

    def open(self, directory: Path, *, open_input: OpenInput, opened: contextlib.ExitStack) -> Attachment:  # noqa: ARG002
        return self.attached(opened.enter_context(reserve_vsock()))

    def attached(self, reserved: ReservedCid) -> Attachment:
        name = _OURS if self.ours else f"{_OURS}-{reserved.cid}"
        return Attachment(
            options=("-device", options(_DRIVER, id=name, guest_cid=reserved.cid, vhostfd=reserved.fd)),
            inherited=(reserved.fd,),
        )

    def fingerprint(self) -> tuple[str, ...]:
        return self.attached(ReservedCid(fd=0, cid=0)).options


@attrs.frozen(kw_only=True)
class VsockLink:
    """Implements `vmm.devices.links.AgentLink`."""

    agent: AgentKind
    cid: int
    silence_s: ClassVar[float | None] = None

    async def open(self, directory: Path, *, gone: Callable[[], Awaitable[ExitReport]]) -> trio.SocketStream:  # noqa: ARG002
        return await connect_vsock(self.cid, gone=gone)


def link_of(driver: str, properties: Mapping[str, str]) -> VsockLink | None:
    """The link of a running QEMU's `-device`, if that is a vsock device."""
    if driver != _DRIVER:
        return None
    agent = AgentKind.BUILTIN if properties.get("id") == _OURS else AgentKind.NOOP
    return VsockLink(agent=agent, cid=int(properties["guest-cid"]))


def check_vsock(device: Path = VHOST_VSOCK) -> None:
    """Raises MissingFileError if this host cannot give VMs a vsock device."""
    if not os.access(device, os.R_OK | os.W_OK):
        raise MissingFileError(field="channel", path=device, remedy=_REMEDY)


def set_guest_cid(fd: int, cid: int) -> None:
    """Raises OSError, with EADDRINUSE if a VM of this host has that CID."""
    fcntl.ioctl(fd, _SET_GUEST_CID, cid.to_bytes(8, "little"))


@contextlib.contextmanager
def reserve_vsock(
    *,
    device: Path = VHOST_VSOCK,
    assign: Callable[[int, int], None] = set_guest_cid,
    draw: Callable[[int, int], int] = random.randint,
) -> Iterator[ReservedCid]:
    """An open device with a CID that no other VM of the host has; closed at the end, so QEMU must have inherited it.

    Raises MissingFileError, SpecError if no CID is available, OSError.
    """
    check_vsock(device)
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_DRAWS):
            cid = draw(FIRST_CID, LAST_CID)
            try:
                assign(fd, cid)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                break
        else:
            raise SpecError(field="channel", value="vsock", reason=f"{_DRAWS} CIDs in a row are taken on this host")
        yield ReservedCid(fd=fd, cid=cid)
    finally:
        os.close(fd)


async def open_vsock(cid: int, port: int) -> trio.SocketStream:
    """A connection to a guest's port. Raises OSError."""
    connection = trio.socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        await connection.connect((cid, port))
    except BaseException:
        connection.close()
        raise
    return trio.SocketStream(connection)


async def connect_vsock(
    cid: int,
    *,
    gone: Callable[[], Awaitable[ExitReport]],
    open_stream: Callable[[int, int], Awaitable[trio.SocketStream]] = open_vsock,
) -> trio.SocketStream:
    """A connection to the agent of a guest that may still boot. The caller sets the deadline.

    The host cannot see when a guest begins to listen, so it retries after pauses that grow to 0.1 s. `gone` returns
    when QEMU is dead, which ends the attempts. Raises AgentUnreachableError.
    """
    stream: trio.SocketStream | None = None
    failure: AgentUnreachableError | None = None

    async def watch(trying: trio.CancelScope) -> None:
        nonlocal failure
        report = await gone()
        failure = AgentUnreachableError(f"vsock {cid}:{AGENT_PORT}: QEMU is gone: {report}")
        trying.cancel(reason="QEMU is dead")

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            pause_s = _FIRST_PAUSE_S
            while stream is None and failure is None:
                try:
                    stream = await open_stream(cid, AGENT_PORT)
                except OSError as error:
                    if error.errno in _NOT_YET:
                        await trio.sleep(pause_s)
                        pause_s = min(pause_s * 2, _LAST_PAUSE_S)
                    else:
                        failure = AgentUnreachableError(f"vsock {cid}:{AGENT_PORT}: {error}; {_REMEDY}")
                        failure.__cause__ = error
            nursery.cancel_scope.cancel(reason="connected, or never will be")
    except BaseException:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise
    if stream is None:
        assert failure is not None, "the loop ends with one or the other"
        raise failure
    return stream
