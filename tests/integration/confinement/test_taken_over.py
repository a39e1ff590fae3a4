"""A real QEMU that does what its guest wants: it issues the system calls of `attacks`, and none reaches anybody."""

from __future__ import annotations

import os
import platform
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from tests.integration.confinement import attacks
from tests.integration.confinement.puppet import CaughtError, Puppet
from vmm.qemu.command_line import Start
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.layers import Layers
from vmm.qemu.instance import Instance
from vmm.spec import MachineSpec
from vmm.words.confinement import Layer

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls, and registers"),
    pytest.mark.usefixtures("leak_check"),
]

CAUGHT = "ended for it"

VICTIM, ATTACKER = (f"{name}-{secrets.token_hex(4)}" for name in ("victim", "attacker"))
"""Other runs of these tests have the same cgroups above theirs."""


@asynccontextmanager
async def running(
    spec: MachineSpec, home: Path, name: str, confinement: Confinement, nursery: trio.Nursery
) -> AsyncIterator[Instance]:
    """A QEMU that is past its start: its own filter is loaded."""
    instance = Instance.start(spec, vm_id=name, directory=home / name, start=Start.INCOMING, confinement=confinement)
    try:
        await instance.connect_qmp(nursery=nursery)
        yield instance
    finally:
        await instance.kill()


def targets_of(victim: Instance, *, service_socket: Path, port: int) -> attacks.Targets:
    lines = Path(f"/proc/{victim.process.pid}/maps").read_text().splitlines()
    heap = next(line for line in lines if " rw-p " in line)
    return attacks.Targets(
        victim=victim.process.pid,
        victim_address=int(heap.partition("-")[0], 16),
        directory=str(victim.directory.root),
        service=os.getpid(),
        service_socket=str(service_socket),
        port=port,
    )


def attempt(pid: int, calls: tuple[attacks.Call, ...]) -> str:
    try:
        with Puppet(pid) as puppet:
            result = attacks.attempt(calls, puppet.perform, puppet.put)
    except CaughtError:
        return CAUGHT
    return "succeeded" if result >= 0 else os.strerror(-result)


@pytest.mark.parametrize("missing", [None, Layer.SECCOMP, Layer.LANDLOCK, Layer.MOUNT_NAMESPACE])
async def test_it_reaches_nobody(
    spec: MachineSpec, vm_home: Path, confinement: Confinement, nursery: trio.Nursery, missing: Layer | None
) -> None:
    if not {Layer.SECCOMP, Layer.LANDLOCK, Layer.MOUNT_NAMESPACE} <= confinement.layers.applied:
        pytest.skip(f"not all layers here: {confinement.layers.missing}")
    left = Layers(applied=confinement.layers.applied - {missing})
    confinement = attrs.evolve(confinement, layers=left)
    verdicts: dict[str, str] = {}
    with (
        socket.create_server(("127.0.0.1", 0)) as internet,
        socket.socket(socket.AF_UNIX) as service,
        trio.fail_after(120),
    ):
        service.bind(str(vm_home / "vmpool.sock"))
        (vm_home / "vmpool.sock").chmod(0o600)
        service.listen(100)
        async with running(spec, vm_home, VICTIM, confinement, nursery) as victim:
            (victim.directory.root / "memory").write_bytes(b"secret")
            at = targets_of(victim, service_socket=vm_home / "vmpool.sock", port=internet.getsockname()[1])
            todo = attacks.attacks(at)
            while todo.keys() - verdicts.keys():
                async with running(spec, vm_home, ATTACKER, confinement, nursery) as attacker:
                    for name, calls in todo.items():
                        if name not in verdicts:
                            verdicts[name] = attempt(attacker.process.pid, calls)
                            if verdicts[name] == CAUGHT:
                                break
            assert await victim.execute("query-status"), "the other VM lives"
    (vm_home / "vmpool.sock").unlink()
    succeeded = {name for name, verdict in verdicts.items() if verdict == "succeeded"}
    assert succeeded <= ({*attacks.OWN_AFFAIR} if missing is Layer.SECCOMP else set())
