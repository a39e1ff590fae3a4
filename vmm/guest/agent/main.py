"""The agent as the guest's first process: `init` mounts file systems, loads modules and then executes the agent."""

from __future__ import annotations

# The C modules behind `signal` and `socket`; those would import `enum` and other modules.
import _signal  # type: ignore[import-not-found]
import _socket
import fcntl
import os
import sys
import time

from . import cgroup
from .loop import READ, Loop
from .oom import Kills
from .running import Processes
from .service import Service
from .system import System

PORT_NAME = "vmpool.agent.0"
VSOCK_PORT = 1024

_PORTS = "/sys/class/virtio-ports"
_PORT_WAIT_NS = 10_000_000_000


def main() -> None:
    """Never returns. If the agent fails the machine is powered off: without an agent the guest is of no use."""
    try:
        _obey_power_commands()
        _bring_up_loopback()
        processes = Processes(Loop(), kills=Kills(), cgroups=cgroup.ROOT)
        if os.environ.get("VMPOOL_CHANNEL") == "vsock":
            serve(_listen_on_vsock(), System(), processes)
        else:
            Service(_open_port(), System(), processes=processes).run()
    except BaseException as error:  # noqa: BLE001  (the outermost frame)
        sys.stderr.write(f"vmpool agent: {type(error).__name__}: {error}\n")
        _print_where(error)
    _end_machine("poweroff")


def _obey_power_commands() -> None:
    """`poweroff`, `reboot` and `halt` signal the first process, which has to carry them out.

    There is no orderly shutdown first: the guest's state is all in memory. A halted machine would stay for ever, so
    `halt` powers off too.
    """
    for number, command in ((_signal.SIGUSR1, "poweroff"), (_signal.SIGUSR2, "poweroff"), (_signal.SIGTERM, "reboot")):
        _signal.signal(number, lambda _number, _frame, command=command: _end_machine(command))


def _end_machine(command: str) -> None:
    os.execv("/bin/busybox", [command, "-f"])  # noqa: S606 - no shell needed


def _open_port() -> int:
    # The driver creates its ports a moment after it is loaded.
    deadline = time.monotonic_ns() + _PORT_WAIT_NS
    while time.monotonic_ns() < deadline:
        for name in os.listdir(_PORTS) if os.path.isdir(_PORTS) else ():
            with open(f"{_PORTS}/{name}/name", "rb", buffering=0) as file:
                if file.read().strip() == PORT_NAME.encode():
                    return os.open(f"/dev/{name}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        time.sleep(0.002)
    raise OSError(f"no virtio-serial port is named {PORT_NAME}; run QEMU with -device virtserialport,name={PORT_NAME}")


def _listen_on_vsock() -> _socket.socket:
    listener = _socket.socket(_socket.AF_VSOCK, _socket.SOCK_STREAM)
    listener.bind((_socket.VMADDR_CID_ANY, VSOCK_PORT))
    listener.listen(1)
    return listener


def serve(listener: _socket.socket, system: System, processes: Processes) -> None:
    """Serves one host after another, for ever. The VM's preparation and processes outlive each connection."""
    while True:
        Service(_accept(listener, processes.loop), system, processes=processes).run(until_hangup=True)


def _accept(listener: _socket.socket, loop: Loop) -> int:
    """Waits for the next host; the processes go on meanwhile."""
    fds: list[int] = []

    def accept(_events: int) -> None:
        fd, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - avoids importing `socket`
        fds.append(fd)

    loop.pause_sources(paused=False)
    loop.watch(listener.fileno(), READ, accept)
    while not fds:
        loop.run_once(wait=True)
    loop.unwatch(listener.fileno())
    return fds[0]


def _bring_up_loopback() -> None:
    # Programs expect 127.0.0.1. This is SIOCSIFFLAGS with IFF_UP and IFF_RUNNING; the kernel then assigns the address.
    loopback = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    fcntl.ioctl(loopback.fileno(), 0x8914, b"lo".ljust(16, b"\0") + (0x41).to_bytes(2, "little") + bytes(14))
    loopback.close()


def _print_where(error: BaseException) -> None:
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        sys.stderr.write(f"  {code.co_filename}:{trace.tb_lineno} in {code.co_name}\n")
        trace = trace.tb_next
