"""libvirt from Debian, on TCG, with the same kernel, initramfs and QEMU.

virsh runs the QEMU driver itself (`qemu:///embed`): no daemon, nothing outside one directory, and no round trips to a
daemon in the figures, which is in libvirt's favour. Its `--timing` reports the time of a command. A service of root
runs QEMU as nobody; so does this.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import attrs
import trio

from bench.case import BenchError
from vmm.spec import MachineSpec

_NAME: Final = "bench"
_TIME: Final = re.compile(rb"\(Time: ([0-9.]+) ms\)")
_PROMPT: Final = b"virsh # "
_DRIVER: Final = Path("/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so")

_DOMAIN: Final = """
<domain type='qemu'>
  <name>{name}</name><memory unit='MiB'>{memory_mib}</memory><vcpu>{vcpus}</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
    <cmdline>{parameters}</cmdline></os>
  <features><acpi/></features><cpu mode='maximum'/><on_reboot>destroy</on_reboot>
  <devices><emulator>{qemu}</emulator><serial type='null'/>
    <channel type='unix'><source mode='bind'/><target type='virtio' name='vmpool.agent.0'/></channel>
    <memballoon model='none'/><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices>
</domain>
"""


def missing() -> str:
    """Why it cannot run; empty if it can."""
    if shutil.which("virsh") is None or not _DRIVER.exists():
        return "libvirt is not installed; run scripts/bench --with-baselines"
    return ""


@attrs.define(eq=False)
class Virsh:
    """One virsh that takes commands; its domains live as long as it does."""

    _process: trio.Process
    _said: bytes = b""

    async def do(self, command: str) -> float:
        """Seconds, as reported by virsh. Raises BenchError with its other output."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(command.encode() + b"\n")
        said = await self._until_prompt()
        found = _TIME.search(said)
        if found is None or b"error:" in said:
            raise BenchError(f"virsh {command}: {said.decode(errors='replace').strip()}")
        return float(found[1]) / 1e3

    async def _until_prompt(self) -> bytes:
        assert self._process.stdout is not None
        while not _TIME.search(self._said):
            data = await self._process.stdout.receive_some()
            if not data:
                raise BenchError(f"virsh ended: {self._said.decode(errors='replace').strip()}")
            self._said += data
        found = _TIME.search(self._said)
        assert found is not None
        said, self._said = self._said[: found.end()], self._said[found.end() :]
        return said

    async def begin(self, domain: Path) -> None:
        await self.do(f"define {domain}")

    async def start(self) -> float:
        return await self.do(f"start {_NAME}")

    async def suspend(self) -> float:
        return await self.do(f"suspend {_NAME}")

    async def resume(self) -> float:
        return await self.do(f"resume {_NAME}")

    async def save(self) -> float:
        """managedsave: the next start restores."""
        return await self.do(f"managedsave {_NAME}")

    async def destroy(self) -> None:
        await self.do(f"destroy {_NAME}")


@contextlib.asynccontextmanager
async def virsh(home: Path, spec: MachineSpec) -> AsyncIterator[Virsh]:
    """A virsh that has defined the domain; at the end the domain and its files are removed."""
    directory = home / "libvirt"
    (directory / "etc").mkdir(parents=True)
    try:
        (directory / "etc" / "qemu.conf").write_text('stdio_handler = "file"\n')  # no log daemon
        domain = directory / "domain.xml"
        domain.write_text(
            _DOMAIN.format(
                name=_NAME,
                memory_mib=spec.memory_mib,
                vcpus=spec.vcpus,
                machine=spec.machine_type,
                kernel=spec.kernel,
                initrd=spec.initrd,
                parameters="console=ttyS0 quiet panic=1 reboot=t",
                qemu=spec.qemu,
            )
        )
        as_nobody = _as_nobody(home, directory) if os.geteuid() == 0 else []
        process = await trio.lowlevel.open_process(
            [*as_nobody, "virsh", "--timing", "--connect", f"qemu:///embed?root={directory}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=os.environ | {"HOME": str(directory), "LC_ALL": "C"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        shell = Virsh(process)
        try:
            await shell.begin(domain)
            yield shell
        finally:
            with trio.CancelScope(shield=True):
                with contextlib.suppress(BenchError, trio.BrokenResourceError):
                    await shell.do(f"undefine {_NAME} --managed-save")
                await process.stdin.aclose()
                await process.wait()
                await process.stdout.aclose()
    finally:
        shutil.rmtree(directory)


def _as_nobody(home: Path, directory: Path) -> list[str]:
    """The prefix that runs a command as nobody, who from now on owns the directory and may enter the one above."""
    nobody = pwd.getpwnam("nobody")
    home.chmod(0o711)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
