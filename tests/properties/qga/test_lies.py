"""A guest that answers for qemu-ga as it likes. Each operation comes to its result or to an AgentError."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.agents import collect
from tests.examples import examples
from tests.unit.qga.fake import Refused
from tests.unit.qga.test_client import session
from tests.virtual_time import in_virtual_time
from vmm.errors import AgentError
from vmm.guest.qga.client import QgaClient
from vmm.words.commands import CommandSpec
from vmm.words.preparation import Preparation

OPERATIONS: Final[Mapping[str, Callable[[QgaClient], Awaitable[object]]]] = {
    "ping": lambda client: client.ping(),
    "exec": lambda client: _run(client, CommandSpec(argv=["true"])),
    "exec elsewhere": lambda client: _run(client, CommandSpec(argv=["true"], working_directory="/srv")),
    "put": lambda client: client.put_file("/file", bytes(100)),
    "get": lambda client: client.get_file("/file", limit=1000),
    "prepare": lambda client: client.prepare(
        Preparation(
            entropy=bytes(32), wall_clock_ns=10**18, hostname="guest", random_bytes=16, vcpus=2, memory_mib=512,
            environment={"SHAPE": "round"}, machine_id="0" * 32,
        )
    ),
}  # fmt: skip


async def _run(client: QgaClient, spec: CommandSpec) -> object:
    return await collect(await client.start_command(spec))


names = st.sampled_from(
    [
        *("pid", "exited", "exitcode", "signal", "out-data", "err-data", "out-truncated", "count", "eof", "buf-b64"),
        *("version", "kernel-release", "logical-id", "online", "phys-index", "size", "response", "can-offline"),
    ]
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "QUJD", "QQ", "caf\u00e9", "\ud800", "\0", "MTIzIDQ1Ng==", "eA==" * 100]),
    st.text(max_size=5),
)
answers = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner), max_leaves=8)
likely = st.one_of(
    answers,
    st.dictionaries(names, leaves),
    st.fixed_dictionaries({"exited": st.just(True), "exitcode": st.just(0), "out-data": leaves}),
    st.fixed_dictionaries({"pid": st.integers(0, 2**70)}),
    st.fixed_dictionaries({"count": st.integers(-1, 2**70), "buf-b64": leaves, "eof": st.booleans()}),
    st.lists(st.dictionaries(names, leaves), max_size=3),
)
COMMANDS: Final = (
    *("guest-exec", "guest-exec-status", "guest-file-open", "guest-file-read", "guest-file-write", "guest-file-close"),
    *("guest-info", "guest-get-osinfo", "guest-get-time", "guest-set-time", "guest-get-vcpus", "guest-set-vcpus"),
    *("guest-get-memory-blocks", "guest-set-memory-blocks", "guest-get-memory-block-info"),
)


def refuses(description: str) -> Callable[[dict[str, Any]], Any]:
    def handler(_: dict[str, Any]) -> Any:
        raise Refused(description)

    return handler


handlers = likely.map(lambda answer: lambda _: answer) | st.text(max_size=9).map(refuses)


@given(
    operation=st.sampled_from(list(OPERATIONS)), lies=st.dictionaries(st.sampled_from(COMMANDS), handlers, min_size=1)
)
@examples(100)
@in_virtual_time
async def test_an_operation_ends_in_its_result_or_an_agent_error_or_when_its_caller_has_had_enough(
    operation: str, lies: dict[str, Callable[[dict[str, Any]], Any]]
) -> None:
    async with session() as s:
        s.qga.files["/file"] = b"content"
        s.qga.on_start = lambda process: setattr(process, "end", {"exitcode": 0})
        s.qga.handlers |= lies
        # That a program never ends is no lie; whoever waits for it has a deadline.
        with contextlib.suppress(AgentError), trio.move_on_after(600):
            await OPERATIONS[operation](s.client)
