"""The host's side of qemu-ga."""

from __future__ import annotations

import errno
import os
import re

import trio

from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.guest.qga import execution, files
from vmm.guest.qga.channel import QgaChannel
from vmm.guest.qga.command import QgaCommand
from vmm.guest.qga.preparation import prepare
from vmm.guest.qga.protocol import errno_of
from vmm.guest.qga.session import keep_environment, take_over
from vmm.guest.unsupported import NoFiles, NoPorts, NoProcesses
from vmm.untrusted import said
from vmm.words.commands import MAX_GOT_FILE, CommandSpec
from vmm.words.preparation import GuestInfo, Preparation, PreparationReport
from vmm.words.usage import Usage

_NO_PLACE = 72
_MAY_START = f'cd "$0" || exit {_NO_PLACE}; command -v "$1" >/dev/null'
_START_IN = 'cd "$0" && exec "$@"'


class QgaClient:
    """Implements `vmm.contract.Agent` with qemu-ga. What qemu-ga cannot do is refused with an error that says so.

    Any number of tasks may use it at once; qemu-ga handles one request at a time, while commands run in parallel.
    """

    def __init__(self, channel: QgaChannel, environment: dict[str, str]) -> None:
        """Use `connect`."""
        self._channel = channel
        self._environment = environment
        self.processes = NoProcesses(_unable)
        self.files = NoFiles(_unable)
        self.ports = NoPorts(_unable)

    @classmethod
    async def connect(cls, stream: trio.abc.Stream, *, nursery: trio.Nursery) -> QgaClient:
        """Returns once qemu-ga has answered; a booting guest answers when it has booted.

        The caller sets the deadline. The client takes over the stream, and closes it on failure. `nursery` runs one
        background task, which never raises into it. Commands of an earlier connection are killed; the environment that
        it set stays in effect. Raises AgentError.
        """
        channel = QgaChannel(stream)
        try:
            await channel.open(nursery)
            environment = await take_over(channel)
        except BaseException:
            await channel.aclose()
            raise
        return cls(channel, environment)

    async def ping(self) -> GuestInfo:
        """Reports qemu-ga's major version."""
        about = await self._channel.execute("guest-info", request="ping")
        version = re.match(r"[0-9]{1,9}", said(about.get("version") if isinstance(about, dict) else ""))
        system = await self._channel.execute("guest-get-osinfo", request="ping")
        kernel = system.get("kernel-release") if isinstance(system, dict) else None
        return GuestInfo(agent_version=int(version[0]) if version else 0, kernel_release=said(kernel))

    async def prepare(self, preparation: Preparation) -> PreparationReport:
        """See the contract, and `vmm.guest.qga.preparation` for what the guest needs.

        The environment applies to commands started by this client, and by later ones.
        """
        for name in ("hostname", "machine_id", "vm_uuid"):
            if "\0" in (getattr(preparation, name) or ""):
                raise AgentRequestError(
                    request="prepare", code="BAD_REQUEST", message=f"{name} contains a zero byte", part=name
                )
        with self._channel.judging():
            report = await prepare(self._channel, preparation)
        if preparation.environment:
            environment = self._environment | dict(preparation.environment)
            with self._channel.judging():
                await keep_environment(self._channel, environment)
            self._environment = environment
        return report

    async def start_command(self, spec: CommandSpec) -> QgaCommand:
        """See the contract, and `QgaCommand` for its limits. If cancelled while waiting, it kills the command.

        qemu-ga runs programs as root, without limits and terminals: these options are refused by their names. What a
        program has started it always leaves running.
        """
        _refuse_options(spec)
        environment = self._environment | dict(spec.environment)
        argv = list(spec.argv)
        if not argv:
            raise AgentRequestError(request="exec", code="BAD_REQUEST", message="argv is empty")
        with self._channel.judging():
            if spec.working_directory is not None:
                await self._check_place(spec.working_directory, argv[0])
                argv = [execution.SHELL, "-c", _START_IN, spec.working_directory, *argv]
            pid = await execution.start(
                self._channel, argv, request="exec", environment=environment, stdin=spec.stdin or b""
            )
        command = QgaCommand(self._channel, pid, spec)
        self._channel.start_soon(command.watch)
        return command

    async def put_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """See the contract. Needs a shell in the guest."""
        with self._channel.judging():
            await files.put(self._channel, path, data, mode=mode)

    async def get_file(self, path: str, *, limit: int = MAX_GOT_FILE) -> bytes:
        """See the contract."""
        with self._channel.judging():
            return await files.get(self._channel, path, limit=limit)

    async def usage(self) -> Usage:
        raise _unable("usage")

    async def set_clock(self, wall_clock_ns: int) -> None:
        """See the contract."""
        await self._channel.execute("guest-set-time", {"time": wall_clock_ns}, request="set_clock")

    async def wait_broken(self) -> AgentProtocolError:
        """See the contract."""
        return await self._channel.wait_broken()

    async def aclose(self) -> None:
        """Hangs up: pending and later requests fail with AgentUnreachableError. Idempotent; takes under a second, also
        under cancellation. Running commands go on."""
        await self._channel.aclose()

    async def _check_place(self, directory: str, program: str) -> None:
        """qemu-ga cannot set a directory, so a shell changes to it; but that shell would report a failure too late."""
        argv = [execution.SHELL, "-c", _MAY_START, directory, program]
        end = await execution.run(self._channel, argv, request="exec")
        if end.status == 0:
            return
        if end.status == _NO_PLACE:
            part, what = execution.WORKING_DIRECTORY, f"working directory {directory}"
        else:
            part, what = execution.PROGRAM, program
        # Not every shell reports the reason; ENOENT is the most frequent.
        code = errno_of(end.said) or "ENOENT"
        said = end.said if end.stderr else os.strerror(getattr(errno, code))
        raise AgentRequestError(request="exec", code=code, message=f"{what}: {said}", part=part)


def _refuse_options(spec: CommandSpec) -> None:
    options = {
        "user": spec.user,
        "groups": spec.groups,
        "limits": spec.limits,
        "terminal": spec.terminal,
    }
    for name, wanted in options.items():
        if wanted:
            raise _unable("exec", f"qemu-ga cannot run a program with {name}", part=name)


def _unable(request: str, why: str = "qemu-ga has no command for it", *, part: str = "") -> AgentRequestError:
    """The refusal of a request for which qemu-ga has no command."""
    return AgentRequestError(
        request=request,
        code="UNSUPPORTED",
        message=f'{why}; use a guest image with agent = "builtin"',
        part=part,
    )
