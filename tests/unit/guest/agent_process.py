"""The agent as a process on the host, with a system that only remembers what it was told. Argument: a descriptor."""

from __future__ import annotations

import sys
import time
from typing import Any

from vmm.guest.agent.service import Service
from vmm.guest.agent.system import System


class RememberingSystem(System):
    """Touches neither the host's clock nor its name nor its random number generator."""

    def __init__(self) -> None:
        self.hostname = "unnamed"
        self.wall_clock_ns = time.time_ns()
        self.cpus = 1

    def reseed(self, entropy: bytes) -> None:
        if entropy == b"refuse":
            raise PermissionError(1, "Operation not permitted")

    def set_clock(self, wall_clock_ns: int) -> None:
        self.wall_clock_ns = wall_clock_ns

    def set_hostname(self, hostname: str) -> None:
        self.hostname = hostname

    def online_cpus_and_memory(self) -> None:
        self.cpus = 2

    def report(self) -> dict[str, Any]:
        return {
            "hostname": self.hostname,
            "cpus_online": self.cpus,
            "memory_mib": 256,
            "wall_clock_ns": self.wall_clock_ns,
        }


if __name__ == "__main__":
    Service(int(sys.argv[1]), RememberingSystem()).run(until_hangup=True)
