"""What a caller does in the VM of its lease, by the real handlers of the edge: processes, files, ports, usage."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio
from grpclib.const import Status

from pool.ledger.records import Lease, Owner
from tests.simulation.edge import CallEndedError, Edge, EdgeGoneError
from tests.simulation.guest_books import Started
from vmm.words.commands import OutputStream
from vmpool.wire.generated.vmpool import v1 as wire

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

PAUSE_S: Final = 2.0
"""Between two acts, on average."""

_BUG: Final = "internal error ("


@attrs.frozen(kw_only=True)
class GuestWork:
    simulation: Simulation
    lease: Lease
    owner: Owner
    number: int
    """Of the client: its files and ports are its own, though others may have the same lease."""
    random: Random

    async def run(self) -> None:
        """As long as the lease is promised. Cancelled at any moment, as callers go away."""
        acts: Sequence[Callable[[Edge], Awaitable[None]]] = (
            self._start, self._start, self._follow, self._follow, self._follow, self._leave_unread, self._list,
            self._wait, self._kill, self._write, self._write, self._read, self._read, self._connect, self._exec,
            self._look_up, self._trespass,
        )  # fmt: skip
        known = None
        while self.simulation.books.is_binding(self.lease):
            service = await self.simulation.serving()
            act, limit_s = self.random.choice(acts), self.random.choice([0.5, 3.0, math.inf])
            if service is not known:  # as whoever was broken off
                act, known = self.random.choice([self._follow, self._list, self._read]) if known else act, service
            self._say(f"{act.__name__} in {self.lease.vm_id}")
            try:
                with trio.move_on_after(limit_s):
                    await act(service.edge)
            except* EdgeGoneError:
                self._say("the service is gone")
            except* CallEndedError as ended:
                self._ended(ended)
            await trio.sleep(self.random.expovariate(1 / PAUSE_S))

    def _ended(self, ended: BaseExceptionGroup[CallEndedError]) -> None:
        for error in ended.exceptions:
            self._say(str(error))
            bug = isinstance(error, CallEndedError) and error.message.startswith(_BUG)
            self.simulation.findings.check("no_call_fails_by_a_bug", not bug, error)

    # -- processes -------------------------------------------------------------------------------------------------

    async def _start(self, edge: Edge) -> None:
        keep, each_s = self.random.choice([100, 4096, 2**20]), self.random.choice(["0.25", "1.5"])
        request = wire.StartRequest(
            process=wire.ExecStart(lease_id=self.lease.lease_id, argv=["lines", each_s]), keep_bytes=keep
        )
        reply = await self._ask(edge, "Processes/Start", request)
        started = Started(process_id=reply.process.process_id, keep=keep)
        self.simulation.guest_books.processes[self.lease.vm_id].append(started)

    async def _follow(self, edge: Edge) -> None:
        """From where it was read to, or from the beginning, for a while."""
        if (started := self._one()) is None:
            return
        expected = self.random.choice([0, started.seen])
        start = wire.AttachStart(process=self._ref(started), stdout_from=expected)
        books, kept = self.simulation.guest_books, self._kept(started)
        try:
            async with self._call(edge, "Processes/Attach") as call:
                await call.send(wire.AttachRequest(start=start))
                with trio.move_on_after(self.random.choice([0.0, 1.0, 5.0])):
                    info = (await call.receive()).process
                    books.found(started, end=info.stdout_end, kept_from=info.stdout_kept_from)
                    while (reply := await call.receive()) is not None and reply.exit is None:
                        output = reply.stdout
                        books.output(
                            started, expected=expected, kept_from=kept(), position=output.position, data=output.data
                        )
                        expected = output.position + len(output.data)
                        await trio.sleep(self.random.choice([0.0, 0.0, 2.0]))
                    if reply is not None:
                        books.missing(started, binds=self._binds())
        except* CallEndedError as ended:
            self._missing_if_said(started, ended)
            raise

    async def _leave_unread(self, edge: Edge) -> None:
        if (started := self._one()) is None:
            return
        async with self._call(edge, "Processes/Attach") as call:
            await call.send(wire.AttachRequest(start=wire.AttachStart(process=self._ref(started))))
            await trio.sleep(self.random.choice([0.5, 10.0]))

    async def _list(self, edge: Edge) -> None:
        known = [started for started in self._started() if not started.killed]
        reply = await self._ask(edge, "Processes/List", wire.ListProcessesRequest(lease_id=self.lease.lease_id))
        running = {info.process_id for info in reply.processes if info.exit is None}
        for started in known:
            if started.process_id not in running:
                self.simulation.guest_books.missing(started, binds=self._binds())
            else:
                self.simulation.guest_books.there(started)

    async def _wait(self, edge: Edge) -> None:
        if (started := self._one()) is None:
            return
        request = wire.WaitProcessRequest(process=self._ref(started))
        try:
            await self._ask(edge, "Processes/Wait", request)
            self.simulation.guest_books.missing(started, binds=self._binds())
        except CallEndedError as ended:
            self._missing_if_said(started, ExceptionGroup("", [ended]))
            raise

    async def _kill(self, edge: Edge) -> None:
        if (started := self._one()) is None or len(self._started()) < 2:
            return
        started.killed = True
        await self._ask(edge, "Processes/Signal", wire.SignalRequest(process=self._ref(started), signal=9))

    def _missing_if_said(self, started: Started, ended: BaseExceptionGroup[CallEndedError]) -> None:
        for error in ended.exceptions:
            if isinstance(error, CallEndedError) and error.status is Status.NOT_FOUND and "process" in error.message:
                self.simulation.guest_books.missing(started, binds=self._binds())

    def _started(self) -> list[Started]:
        return self.simulation.guest_books.processes[self.lease.vm_id]

    def _one(self) -> Started | None:
        known = self._started()
        return self.random.choice(known) if known else None

    def _ref(self, started: Started) -> wire.ProcessRef:
        return wire.ProcessRef(lease_id=self.lease.lease_id, process_id=started.process_id)

    def _kept(self, started: Started) -> Callable[[], int]:
        """Where what the guest keeps begins."""
        machine = self.simulation.books.machines[self.lease.vm_id]

        def begins() -> int:
            detached = machine.detached.get(started.process_id)
            return 0 if detached is None else int(detached.kept[OutputStream.STDOUT].start)

        return begins

    # -- files -----------------------------------------------------------------------------------------------------

    def _path(self) -> bytes:
        return b"/tmp/client-%d/%d" % (self.number, self.random.randint(1, 2))

    async def _write(self, edge: Edge) -> None:
        path, data = self._path(), self.random.randbytes(self.random.choice([0, 10, 3000]))
        start = wire.WriteStart(lease_id=self.lease.lease_id, path=path, parents=True)
        books = self.simulation.guest_books
        async with self._call(edge, "Files/Write") as call:
            await call.send(wire.WriteRequest(start=start))
            for at in range(0, len(data), 1000):
                await call.send(wire.WriteRequest(data=data[at : at + 1000]))
                await trio.sleep(self.random.choice([0.0, 0.0, 0.1]))
            books.writing(self.lease, path, data)
            call.send_end()
            await call.receive()
            books.written(self.lease, path, data)

    async def _read(self, edge: Edge) -> None:
        path, data = self._path(), b""
        books = self.simulation.guest_books
        try:
            async with self._call(edge, "Files/Read") as call:
                await call.send(wire.ReadRequest(lease_id=self.lease.lease_id, path=path))
                call.send_end()
                while (reply := await call.receive()) is not None:
                    data += reply.data or b""
        except* CallEndedError as ended:
            for error in ended.exceptions:
                if isinstance(error, CallEndedError) and "ENOENT" in error.message:
                    books.read(self.lease, path, None, binds=self._binds())
            raise
        else:
            books.read(self.lease, path, data, binds=self._binds())

    # -- ports and programs ----------------------------------------------------------------------------------------

    async def _connect(self, edge: Edge) -> None:
        """To a server of its own, which sends back what it gets."""
        port = 1024 + self.random.randrange(1000)
        argv = ["nc", "-ll", "-p", str(port), "-e", "cat"]
        start = wire.StartRequest(process=wire.ExecStart(lease_id=self.lease.lease_id, argv=argv))
        await self._ask(edge, "Processes/Start", start)
        address = wire.PortAddress(tcp_port=port)
        await self._ask(edge, "Ports/Wait", wire.WaitPortRequest(lease_id=self.lease.lease_id, address=address))
        async with self._call(edge, "Ports/Connect") as call:
            await call.send(wire.ConnectRequest(start=wire.ConnectStart(lease_id=self.lease.lease_id, address=address)))
            await call.receive()
            for size in (1, 1000):
                data = self.random.randbytes(size)
                await call.send(wire.ConnectRequest(data=data))
                back = await call.receive()
                same = back is not None and (back.data == data or back.data is None)
                self.simulation.findings.check("connections_carry_what_was_sent", same, back)

    async def _exec(self, edge: Edge) -> None:
        async with self._call(edge, "Pool/Exec") as call:
            await call.send(wire.ExecRequest(start=wire.ExecStart(lease_id=self.lease.lease_id, argv=["yes"])))
            for _ in range(self.random.randint(0, 5)):
                await call.receive()
        await self._ask(edge, "Pool/VmMetrics", wire.VmMetricsRequest(lease_id=self.lease.lease_id))

    # -- leases ----------------------------------------------------------------------------------------------------

    async def _look_up(self, edge: Edge) -> None:
        """By its labels, as another process of the same user would."""
        labels = dict(self.lease.request.labels)
        reply = await edge.ask("Pool/ListLeases", wire.ListLeasesRequest(labels=labels), owner=self.owner)
        check = self.simulation.findings.check
        found = {status.lease_id: status for status in reply.leases}
        check("leases_are_found_by_their_labels", self.lease.lease_id in found or not self._binds(), found)
        foreign = [status for status in found.values() if self.owner.uid not in (0, status.owner_uid)]
        check("nobody_reaches_anothers_vm", not foreign, foreign)

    async def _trespass(self, edge: Edge) -> None:
        """Into a VM of another user."""
        others = [
            held.lease for held in self.simulation.books.held.values() if not self.owner.may_touch(held.lease.owner)
        ]
        if not others:
            return
        lease_id = self.random.choice(others[-3:]).lease_id
        method, request = self.random.choice(
            [
                ("Processes/List", wire.ListProcessesRequest(lease_id=lease_id)),
                ("Files/Stat", wire.StatRequest(lease_id=lease_id, path=b"/")),
                ("Pool/VmMetrics", wire.VmMetricsRequest(lease_id=lease_id)),
                ("Pool/GetLease", wire.GetLeaseRequest(lease_id=lease_id)),
            ]
        )
        check = self.simulation.findings.check
        check("nobody_reaches_anothers_vm", True)
        await edge.ask(method, request, owner=self.owner, lease_id=lease_id)
        check("nobody_reaches_anothers_vm", False, (method, lease_id))

    # -- calls -----------------------------------------------------------------------------------------------------

    def _call(self, edge: Edge, method: str) -> Any:
        return edge.call(method, owner=self.owner, lease_id=self.lease.lease_id)

    async def _ask(self, edge: Edge, method: str, request: Any) -> Any:
        return await edge.ask(method, request, owner=self.owner, lease_id=self.lease.lease_id)

    def _binds(self) -> bool:
        return self.simulation.books.is_binding(self.lease)

    def _say(self, what: str) -> None:
        self.simulation.trace.add(f"client {self.number}", what)
