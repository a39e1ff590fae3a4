"""vmpool.v1.Processes: requests reach the guest as they were meant, and its answers and errors come back."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from tests.unit.rpc.fake_guest import PROCESS, Answering, Attached, lease_with, refusal
from tests.unit.rpc.raw import RawClient, connected, framed
from tests.unit.rpc.served import Served
from vmm.words.commands import CommandExit, CommandSpec, OutputStream, ResourceLimit, Terminal, TerminalSize
from vmm.words.guest_processes import Positions, ProcessOutput, ProcessRef
from vmpool.wire.details import ErrorDetail
from vmpool.wire.generated.vmpool import v1 as wire

PROCESSES = "/vmpool.v1.Processes/"

TOLD = wire.ProcessInfo(
    process_id=7,
    pid=300,
    tag="job",
    argv=["sleep", "9"],
    working_directory="/root",
    user="user",
    terminal=True,
    started_ns=10**18,
    stdout_end=2**40,
    stdout_kept_from=2**40 - 5,
)


def ref(lease_id: str = "", **which: Any) -> wire.ProcessRef:
    return wire.ProcessRef(lease_id=lease_id, **(which or {"process_id": 7}))


async def call(raw: RawClient, method: str, request: Any, kind: type[Any]) -> Any:
    """The reply; the status and the message in its place."""
    number = await raw.request(PROCESSES + method, request)
    reply = await raw.message(number, kind)
    return reply if reply is not None else " ".join(await raw.status(number))


# -- Start -------------------------------------------------------------------------------------------------------------


async def test_a_process_is_started_with_all_that_is_said_of_it(served: Served) -> None:
    guest = Answering(start=PROCESS)
    start = wire.ExecStart(
        lease_id=await lease_with(served, processes=guest),
        argv=["sleep", "9"],
        environment={"A": "1"},
        working_directory="/tmp",
        time_limit_ms=1500,
        stdin=b"in",
        user="user",
        groups=["wheel", "7"],
        limits=[
            wire.ResourceLimit(name="nofile", soft=1, hard=2**64 - 1),
            wire.ResourceLimit(name="cpu", soft=0, hard=0),
        ],
        terminal=wire.Terminal(rows=50, columns=0, term="vt100"),
        leave_children=True,
    )
    async with connected(served.path) as raw:
        request = wire.StartRequest(process=start, tag="job", keep_bytes=10)
        assert await call(raw, "Start", request, wire.StartReply) == wire.StartReply(process=TOLD)
    spec = CommandSpec(
        argv=("sleep", "9"),
        environment={"A": "1"},
        working_directory="/tmp",
        time_limit_s=1.5,
        stdin=b"in",
        user="user",
        groups=("wheel", "7"),
        limits=(ResourceLimit(name="nofile", soft=1, hard=None), ResourceLimit(name="cpu", soft=0, hard=0)),
        terminal=Terminal(size=TerminalSize(rows=50, columns=80), term="vt100"),
        leave_children=True,
    )
    assert guest.asked == [("start", (spec,), {"tag": "job", "keep": 10})]


async def test_a_shell_takes_a_command_line(served: Served) -> None:
    guest = Answering(start=PROCESS)
    start = wire.ExecStart(lease_id=await lease_with(served, processes=guest), shell="sleep 9 | cat")
    async with connected(served.path) as raw:
        await call(raw, "Start", wire.StartRequest(process=start), wire.StartReply)
    assert guest.asked == [
        ("start", (CommandSpec(argv=("/bin/sh", "-c", "sleep 9 | cat")),), {"tag": "", "keep": 2**20})
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (refusal("EEXIST", part="tag"), "6 guest agent refused it: EEXIST"),
        (refusal("ENOENT", part="program"), "3 process.argv[0]: cannot be used: ENOENT: no"),
        (refusal("ENOENT", part="working_directory"), "3 process.working_directory: cannot be used"),
        (refusal("EINVAL", part="user"), "3 process.user: cannot be used"),
        (refusal("EINVAL", part="groups"), "3 process.groups: cannot be used"),
        (refusal("EPERM", part="limits"), "3 process.limits: cannot be used"),
        (refusal("E2BIG"), "3 process.argv and process.environment: are together too large"),
        (refusal("EAGAIN"), "8 guest agent refused it: EAGAIN"),
        (refusal("UNSUPPORTED"), "9 guest agent refused it: UNSUPPORTED"),
    ],
)
async def test_what_cannot_be_started(served: Served, error: Exception, reason: str) -> None:
    lease_id = await lease_with(served, processes=Answering(start=error))
    start = wire.ExecStart(lease_id=lease_id, argv=["x"])
    async with connected(served.path) as raw:
        assert (await call(raw, "Start", wire.StartRequest(process=start), wire.StartReply)).startswith(reason)


async def test_the_errno_of_a_refused_field_is_in_the_details(served: Served) -> None:
    lease_id = await lease_with(served, processes=Answering(start=refusal("ENOENT", part="program")))
    async with connected(served.path) as raw:
        request = wire.StartRequest(process=wire.ExecStart(lease_id=lease_id, shell="x"))
        number = await raw.request(PROCESSES + "Start", request)
        assert await raw.detail(number) == ErrorDetail(
            reason="ENOENT", domain="guest", metadata={"part": "program", "field": "process.shell"}
        )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "process.argv: is empty; name a program and its arguments, or set shell"),
        ({"argv": ["x"], "shell": "x"}, "process.shell: was set together with argv; set one of the two"),
        ({"shell": "a\0b"}, "process.shell: has a NUL character"),
        ({"shell": "x" * 2**17}, "process.shell: has 131072 bytes; the maximum for one string is 131071"),
        ({"argv": ["x"], "user": "a/b"}, "process.user: 'a/b' is not a name or number"),
        ({"argv": ["x"], "groups": ["a", ""]}, "process.groups[1]: is empty"),
        ({"argv": ["x"], "groups": ["a"] * 65}, "process.groups: has 65 entries; at most 64"),
        (
            {"argv": ["x"], "limits": [wire.ResourceLimit(name="files")]},
            "process.limits[0].name: 'files' is not the name of a limit; use one of as, core, cpu,",
        ),
        (
            {"argv": ["x"], "limits": [wire.ResourceLimit(name="cpu")] * 2},
            "process.limits[1].name: 'cpu' was set before",
        ),
        (
            {"argv": ["x"], "limits": [wire.ResourceLimit(name="cpu", soft=2, hard=1)]},
            "process.limits[0].soft: 2 is more than hard, which is 1",
        ),
        (
            {"argv": ["x"], "terminal": wire.Terminal(rows=65536)},
            "process.terminal.rows: 65536 is out of range; the maximum is 65535",
        ),
        (
            {"argv": ["x"], "terminal": wire.Terminal(term="a\nb")},
            "process.terminal.term: must be printable ASCII, at most 64 characters",
        ),
    ],
)
async def test_a_bad_field_of_a_start_is_named(served: Served, fields: dict[str, Any], reason: str) -> None:
    guest = Answering()
    start = wire.ExecStart(lease_id=await lease_with(served, processes=guest), **fields)
    async with connected(served.path) as raw:
        answer = await call(raw, "Start", wire.StartRequest(process=start), wire.StartReply)
    assert answer.startswith(f"3 {reason}")
    assert guest.asked == []


# -- all others with one answer ----------------------------------------------------------------------------------------


async def test_processes_are_listed(served: Served) -> None:
    ended = attrs.evolve(PROCESS, process_id=8, exit=CommandExit(signal=9, out_of_memory=True), attached=True)
    lease_id = await lease_with(served, processes=Answering(list=(PROCESS, ended)))
    async with connected(served.path) as raw:
        reply = await call(raw, "List", wire.ListProcessesRequest(lease_id=lease_id), wire.ListProcessesReply)
    assert reply.processes[0] == TOLD
    assert reply.processes[1].exit == wire.ExecExit(signal=9, out_of_memory=True)
    assert (reply.processes[1].process_id, reply.processes[1].attached) == (8, True)


@pytest.mark.parametrize(
    ("method", "fields", "asked"),
    [
        ("SendInput", {"data": b"in", "close": True}, ("send_input", b"in", {"close": True})),
        ("Signal", {"signal": 15, "everything": True}, ("send_signal", 15, {"everything": True})),
        ("Resize", {"terminal": wire.Terminal(rows=1)}, ("resize", TerminalSize(rows=1, columns=80), {})),
        ("Forget", {}, ("forget", None, {})),
    ],
)
@pytest.mark.parametrize(
    ("which", "process"), [({"process_id": 7}, ProcessRef(process_id=7)), ({"tag": "job"}, ProcessRef(tag="job"))]
)
async def test_a_process_is_used(
    served: Served, method: str, fields: dict[str, Any], asked: Any, which: dict[str, Any], process: ProcessRef
) -> None:
    name, argument, named = asked
    guest = Answering(**{name: None})
    request_type = {"Resize": wire.ResizeTerminalRequest}.get(method) or getattr(wire, f"{method}Request")
    reply_type = {"Resize": wire.ResizeTerminalReply}.get(method) or getattr(wire, f"{method}Reply")
    lease_id = await lease_with(served, processes=guest)
    async with connected(served.path) as raw:
        request = request_type(process=ref(lease_id, **which), **fields)
        assert await call(raw, method, request, reply_type) == reply_type()
    assert guest.asked == [(name, (process,) if argument is None else (process, argument), named)]


async def test_an_end_is_waited_for(served: Served) -> None:
    lease_id = await lease_with(served, processes=Answering(wait=CommandExit(status=3, timed_out=True)))
    async with connected(served.path) as raw:
        reply = await call(raw, "Wait", wire.WaitProcessRequest(process=ref(lease_id)), wire.WaitProcessReply)
    assert reply.exit == wire.ExecExit(status=3, timed_out=True)


async def test_a_wait_ends_with_its_deadline(served: Served) -> None:
    lease_id = await lease_with(served, processes=Answering(wait=...))
    async with connected(served.path) as raw:
        number = await raw.start(PROCESSES + "Wait", headers={"grpc-timeout": "50m"})
        await raw.send(number, framed(wire.WaitProcessRequest(process=ref(lease_id))), end=True)
        assert (await raw.status(number))[0] == "4"


async def test_a_call_ends_with_its_lease(served: Served) -> None:
    lease_id = await lease_with(served, processes=Answering(wait=...))
    async with connected(served.path) as raw, served.client() as client:
        number = await raw.request(PROCESSES + "Wait", wire.WaitProcessRequest(process=ref(lease_id)))
        await served.until(lambda: served.server.statistics().calls == 1)
        await client.release(lease_id)
        status, message = await raw.status(number)
        assert (status, "has already ended (released" in message) == ("10", True)
        assert await raw.detail(number) == ErrorDetail(reason="LEASE_ENDED", domain="vmpool")


@pytest.mark.parametrize("method", ["SendInput", "Signal", "Resize"])
@pytest.mark.parametrize(("known", "status"), [((PROCESS,), "9"), ((), "5")])
async def test_a_process_that_has_ended_is_not_one_that_never_was(
    served: Served, method: str, known: Any, status: str
) -> None:
    guest = Answering(send_input=refusal("ESRCH"), send_signal=refusal("ESRCH"), resize=refusal("ESRCH"), list=known)
    process = ref(await lease_with(served, processes=guest))
    request = {
        "SendInput": wire.SendInputRequest(process=process),
        "Signal": wire.SignalRequest(process=process, signal=9),
        "Resize": wire.ResizeTerminalRequest(process=process, terminal=wire.Terminal()),
    }[method]
    async with connected(served.path) as raw:
        number = await raw.request(PROCESSES + method, request)
        assert (await raw.status(number))[0] == status
        assert (await raw.detail(number)).reason == "ESRCH"


@pytest.mark.parametrize(
    ("method", "code", "status"), [("forget", "EBUSY", "9"), ("send_input", "EPIPE", "9"), ("resize", "ENOTTY", "9")]
)
async def test_what_the_guest_refuses(served: Served, method: str, code: str, status: str) -> None:
    process = ref(await lease_with(served, processes=Answering(**{method: refusal(code)})))
    path, request = {
        "forget": ("Forget", wire.ForgetRequest(process=process)),
        "send_input": ("SendInput", wire.SendInputRequest(process=process)),
        "resize": ("Resize", wire.ResizeTerminalRequest(process=process, terminal=wire.Terminal())),
    }[method]
    async with connected(served.path) as raw:
        assert (await raw.status(await raw.request(PROCESSES + path, request)))[0] == status


@pytest.mark.parametrize(
    ("method", "request_", "reason"),
    [
        ("Start", wire.StartRequest(), "process: is missing; say what to start"),
        ("Wait", wire.WaitProcessRequest(), "process: is missing; name a process"),
        ("Wait", wire.WaitProcessRequest(process=ref()), "process.lease_id: is empty"),
        (
            "Wait",
            wire.WaitProcessRequest(process=wire.ProcessRef(lease_id="x")),
            "process: has nothing; set exactly one of process_id and tag",
        ),
        ("Forget", wire.ForgetRequest(process=ref("x", process_id=0)), "process.process_id: is 0"),
        ("Forget", wire.ForgetRequest(process=ref("x", tag="")), "process.tag: is empty"),
        ("Forget", wire.ForgetRequest(process=ref("x", tag="t" * 129)), "process.tag: has 129 bytes; at most 128"),
        ("Forget", wire.ForgetRequest(process=ref("x", tag="a\0")), "process.tag: has a NUL character"),
        ("Signal", wire.SignalRequest(process=ref("x"), signal=65), "signal: 65 is not a signal number; use 1 to 64"),
        ("Resize", wire.ResizeTerminalRequest(process=ref("x")), "terminal: is missing; set its rows and columns"),
        (
            "SendInput",
            wire.SendInputRequest(process=ref("x"), data=bytes(2**18 + 1)),
            "data: has 262145 bytes; the maximum is 262144; send it in parts",
        ),
        (
            "Start",
            wire.StartRequest(process=wire.ExecStart(argv=["x"]), keep_bytes=2**20 + 1),
            "keep_bytes: 1048577 is out of range; the maximum is 1048576",
        ),
        ("Start", wire.StartRequest(process=wire.ExecStart(argv=["x"]), tag="\N{SNOWMAN}" * 43), "tag: has 129 bytes"),
    ],
)
async def test_a_bad_field_is_named(served: Served, method: str, request_: Any, reason: str) -> None:
    async with connected(served.path) as raw:
        status, message = await raw.status(await raw.request(PROCESSES + method, request_))
    assert (status, message[: len(reason)]) == ("3", reason)


# -- Attach ------------------------------------------------------------------------------------------------------------


async def test_a_process_is_followed(served: Served) -> None:
    output: list[ProcessOutput | CommandExit] = [
        ProcessOutput(stream=OutputStream.STDOUT, position=5, data=b"x" * (2**18 + 1)),
        ProcessOutput(stream=OutputStream.STDERR, position=0, data=b"err"),
        CommandExit(status=0),
    ]
    attached = Attached(PROCESS, output)
    guest = Answering(attach=attached)
    start = wire.AttachStart(process=ref(await lease_with(served, processes=guest)), stdout_from=5, stderr_from=0)
    async with connected(served.path) as raw:
        number = await raw.start(PROCESSES + "Attach")
        await raw.send(number, framed(wire.AttachRequest(start=start)))  # and the requests do not end
        assert await raw.replies(number, wire.AttachReply) == [
            wire.AttachReply(process=TOLD),
            wire.AttachReply(stdout=wire.ProcessOutput(position=5, data=b"x" * 2**18)),
            wire.AttachReply(stdout=wire.ProcessOutput(position=5 + 2**18, data=b"x")),
            wire.AttachReply(stderr=wire.ProcessOutput(data=b"err")),
            wire.AttachReply(exit=wire.ExecExit(status=0)),
        ]
        assert await raw.status(number) == ("0", "")
    assert guest.asked == [("attach", (ProcessRef(process_id=7),), {"positions": Positions(stdout=5, stderr=0)})]
    assert attached.closed


async def test_it_may_be_followed_from_now_on(served: Served) -> None:
    guest = Answering(attach=Attached(PROCESS, [CommandExit(status=0)]))
    start = wire.AttachStart(process=ref(await lease_with(served, processes=guest)), from_now=True)
    async with connected(served.path) as raw:
        await raw.status(await raw.request(PROCESSES + "Attach", wire.AttachRequest(start=start)))
    assert guest.asked[0][2] == {"positions": None}


async def test_it_is_sent_input_and_the_end_of_the_requests_closes_nothing(served: Served) -> None:
    attached = Attached(PROCESS, [], stays=True)
    start = wire.AttachStart(process=ref(await lease_with(served, processes=Answering(attach=attached))))
    async with connected(served.path) as raw:
        number = await raw.start(PROCESSES + "Attach")
        for request in (
            wire.AttachRequest(start=start),
            wire.AttachRequest(stdin=b"in"),
            wire.AttachRequest(signal=2),
            wire.AttachRequest(resize=wire.Terminal(rows=9, columns=9)),
        ):
            await raw.send(number, framed(request))
        await raw.send(number, end=True)
        await served.until(lambda: len(attached.noted) == 3)
        assert attached.noted == [b"in", 2, TerminalSize(rows=9, columns=9)]
        assert not attached.closed
    await served.until(lambda: attached.closed)


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([wire.AttachRequest(stdin=b"x")], "start: must be the first message of the call"),
        ([wire.AttachRequest(start=wire.AttachStart())], "start.process: is missing"),
        ([wire.AttachRequest()], "kind: has nothing; set exactly one of start, stdin, close_stdin, signal and resize"),
    ],
)
async def test_a_bad_attach(served: Served, requests: list[Any], reason: str) -> None:
    async with connected(served.path) as raw:
        number = await raw.start(PROCESSES + "Attach")
        for request in requests:
            await raw.send(number, framed(request))
        status, message = await raw.status(number)
    assert (status, message[: len(reason)]) == ("3", reason)
