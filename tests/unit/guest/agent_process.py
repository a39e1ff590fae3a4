"""The agent as a process on the host, with a system that only remembers what it was told.

Arguments: a descriptor, of a connection or, as an agent on vsock has, of a socket that listens; a file that says how
many CPUs are plugged in and how many 128 MiB blocks, one of each if it is empty; for how many milliseconds the agent
waits for more; where cgroups are mounted, nowhere if it is left out. The files of a cgroup that is made there are those
in `new`, a directory beside the cgroups. AGENT_LIMITS in the environment has other values for constants of the agent.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmm.guest.agent import running
from vmm.guest.agent.cgroup import Cgroup
from vmm.guest.agent.loop import Loop
from vmm.guest.agent.main import serve
from vmm.guest.agent.running import Processes
from vmm.guest.agent.service import Service
from vmm.guest.agent.system import System


class RememberingSystem(System):
    """Touches neither the host's clock nor its name nor its random number generator."""

    def __init__(self, plugged: Path) -> None:
        super().__init__()
        self._plugged = plugged
        self.hostname = "unnamed"
        self._set_ns = time.time_ns()
        self.cpus = 1
        self.blocks = 1

    def reseed(self, entropy: bytes) -> None:
        if entropy == b"refuse":
            raise PermissionError(1, "Operation not permitted")

    def set_clock(self, wall_clock_ns: int) -> None:
        self._set_ns = wall_clock_ns

    def wall_clock_ns(self) -> int:
        return self._set_ns

    def set_hostname(self, hostname: str) -> None:
        self.hostname = hostname

    def random(self, count: int) -> bytes:
        return bytes(range(count))

    def set_machine_id(self, machine_id: str) -> str:
        return machine_id

    def set_vm_uuid(self, vm_uuid: str) -> str:
        return ""

    def cpus_online(self) -> int:
        return self.cpus

    def memory_online_mib(self) -> int:
        return 128 * self.blocks

    def bring_online(self, *, cpus: bool, memory: bool) -> Iterator[str]:
        plugged_cpus, plugged_blocks = map(int, (self._plugged.read_text() or "1 1").split())
        while cpus and self.cpus < plugged_cpus:
            self.cpus += 1
            yield ""
        while memory and self.blocks < plugged_blocks:
            self.blocks += 1
            yield ""
        if plugged_cpus == 0:
            yield "cpu7: Device or resource busy"

    def make_room_for_files(self) -> None:
        pass

    def report(self) -> dict[str, Any]:
        return {"hostname": self.hostname, "memory_mib": 100, "wall_clock_ns": self._set_ns}


class PopulatedCgroup(Cgroup):
    """As of a kernel that puts into a new one what the test wants to be there."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        shutil.copytree(f"{root}/new", self._path, dirs_exist_ok=True)


if __name__ == "__main__":
    _fd, _plugged, _limit_ms, *_cgroups = sys.argv[1:]
    running.Cgroup = PopulatedCgroup  # type: ignore[attr-defined]
    for _name, _value in json.loads(os.environ.get("AGENT_LIMITS", "{}")).items():
        _module, _, _constant = _name.partition(".")
        setattr(importlib.import_module(f"vmm.guest.agent.{_module}"), _constant, _value)
    os.set_inheritable(int(_fd), False)  # as the guest's is
    _port = socket.socket(fileno=int(_fd))
    if _port.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        serve(_port, RememberingSystem(Path(_plugged)), Processes(Loop()))
    Service(
        int(_fd),
        RememberingSystem(Path(_plugged)),
        preparation_limit_ns=int(_limit_ms) * 1_000_000,
        processes=Processes(Loop(), cgroups=next(iter(_cgroups), None)),
    ).run(until_hangup=True)
