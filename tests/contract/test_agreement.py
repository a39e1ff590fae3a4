"""The producers' VMs agree: the same operations have the same outcomes, on clones, booted and simulated VMs."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import Phase, event, given
from hypothesis import strategies as st

from actors.handout import HandOutProcedure, WishRefusedError
from tests.contract.producers import ProducerSubject, QemuProducer, SimulatedProducer
from tests.contract.subjects import BOOT_LIMIT_S, MAX_MEMORY_MIB, MAX_VCPUS
from tests.contract.test_guest import run
from tests.contract.test_producers import SIMULATED_SPEC
from tests.examples import examples
from tests.leaks import nothing_left
from tests.virtual_time import in_virtual_time
from vmm.contract import Vm
from vmm.errors import AgentRequestError, VmmError
from vmm.qemu.template.store import Template, TemplateStore
from vmm.spec import MachineSpec
from vmm.words.kinds import ProducerKind
from vmm.words.wishes import GuestFile, Wishes

Outcome = Any
"""What was observed, in values that can be compared."""


@attrs.frozen
class Content:
    """Bytes that are told in a few words, however many they are."""

    start: bytes
    size: int = 0

    @property
    def data(self) -> bytes:
        return self.start + bytes(number % 251 for number in range(self.size))


@attrs.frozen
class HandOut:
    wishes: Wishes


@attrs.frozen(kw_only=True)
class Run:
    argv: tuple[str, ...]
    environment: dict[str, str]
    working_directory: str | None
    stdin: Content


@attrs.frozen
class Put:
    path: str
    content: Content


@attrs.frozen
class Get:
    path: str


@attrs.frozen
class Pause:
    pass


@attrs.frozen
class Resume:
    pass


@attrs.frozen
class Grow:
    vcpus: int
    memory_mib: int


@attrs.frozen
class Stop:
    pass


Operation = HandOut | Run | Put | Get | Pause | Resume | Grow | Stop

names = st.from_regex(r"[A-Z][A-Z_]{0,6}X", fullmatch=True)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x24F, exclude_categories=["Cc"]), max_size=12)
environments = st.dictionaries(names, values, max_size=3)
paths = st.sampled_from(["/tmp/a", "/tmp/b", "/root/c", "/absent/d"])
contents = st.builds(Content, st.binary(max_size=64), st.just(0) | st.integers(0, 100_000))
wishes = st.builds(
    Wishes,
    vcpus=st.none() | st.integers(1, MAX_VCPUS + 1),
    memory_mib=st.none() | st.integers(1, MAX_MEMORY_MIB + 128),
    hostname=st.just("") | st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True),
    environment=environments,
    files=st.lists(st.builds(GuestFile, path=paths, data=st.binary(max_size=64)), max_size=2).map(tuple),
)
commands = st.one_of(
    st.lists(values.filter(lambda word: not word.startswith("-")), max_size=3).map(lambda words: ("echo", *words)),
    st.lists(paths, max_size=2).map(lambda files: ("cat", *files)),
    st.sampled_from([("false",), ("true",), ("pwd",), ("env",), ("no-such-program",)]),
)
runs = st.builds(
    Run,
    argv=commands,
    environment=environments,
    working_directory=st.sampled_from([None, "/", "/tmp", "/root", "/absent"]),
    stdin=contents,
)
operations = st.one_of(
    runs,
    st.builds(Put, paths, contents),
    st.builds(Get, paths),
    st.builds(Pause),
    st.builds(Resume),
    st.builds(Grow, st.integers(0, MAX_VCPUS + 1), st.integers(0, MAX_MEMORY_MIB + 128)),
)
stories = st.tuples(
    st.one_of(st.builds(HandOut, wishes), st.builds(Resume)),
    st.lists(operations, max_size=8),
    st.booleans(),
    st.lists(operations, max_size=2),
).map(lambda parts: [parts[0], *parts[1], *([Stop(), *parts[3]] if parts[2] else [])])
"""Handed out or just resumed, then used; some are stopped, and asked for something all the same."""


@attrs.define(eq=False, kw_only=True)
class Story:
    """One VM that operations are done to."""

    vm: Vm
    paused: bool = True
    stopped: bool = False

    async def perform(self, operation: Operation) -> Outcome:
        """What came of it; errors by their kind. What a paused guest would answer is not waited for."""
        if self.paused and not self.stopped and isinstance(operation, Run | Put | Get):
            return "waits"
        try:
            with trio.fail_after(BOOT_LIMIT_S):
                return await self._perform(operation)
        except (VmmError, WishRefusedError, BaseExceptionGroup) as error:
            return sorted({kind_of(leaf) for leaf in leaves(error)})

    async def _perform(self, operation: Operation) -> Outcome:
        match operation:
            case HandOut(wishes):
                report, _ = await HandOutProcedure().run(self.vm, wishes)
                self.paused = False
                return (
                    report.reseeded,
                    report.hostname,
                    report.cpus_online,
                    report.memory_online_mib,
                    report.vm_uuid == self.vm.uuid,
                )
            case Run(argv=argv):
                ran = await run(
                    self.vm.agent,
                    *argv,
                    stdin=operation.stdin.data,
                    environment=operation.environment,
                    working_directory=operation.working_directory,
                )
                stdout = sorted(ran.stdout.splitlines()) if argv == ("env",) else ran.stdout
                return (ran.end, stdout, ran.stderr)
            case Put(path, content):
                return await self.vm.agent.put_file(path, content.data)
            case Get(path):
                return await self.vm.agent.get_file(path)
            case Pause():
                await self.vm.pause()
                self.paused = True
            case Resume():
                await self.vm.resume()
                self.paused = False
            case Grow(vcpus, memory_mib):
                return await self.vm.grow(vcpus=vcpus, memory_mib=memory_mib)
            case Stop():
                self.stopped = True
                return await self.vm.stop()
        return None


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    else:
        yield error


def kind_of(error: BaseException) -> str:
    """Of an error that a caller may see; others are none of this test's."""
    if isinstance(error, WishRefusedError):
        return f"{error.field} {error.obstacle.value}"
    if not isinstance(error, VmmError):
        raise error
    kind = type(error).__name__
    return f"{kind} {error.request} {error.code}" if isinstance(error, AgentRequestError) else kind


async def tell(subject: ProducerSubject, story: list[Operation]) -> list[Outcome]:
    """Does it all to a VM of this producer. Nothing is left in the end."""
    async with trio.open_nursery() as nursery:
        await nursery.start(subject.producer.run)
        with trio.fail_after(BOOT_LIMIT_S):
            vm = (await subject.producer.produce(vm_id="vm-1", nursery=nursery)).vm
        try:
            it = Story(vm=vm)
            outcomes = [await it.perform(operation) for operation in story]
        finally:
            await vm.stop()
        assert subject.left() == set()
        nursery.cancel_scope.cancel(reason="the story is told")
    return outcomes


def simulated(kind: ProducerKind) -> ProducerSubject:
    return SimulatedProducer(kind=kind, spec=SIMULATED_SPEC)


@pytest.fixture(autouse=True)
def _checked_for_leaks() -> None:
    """In place of the conftest's: here each example is checked."""


@pytest.mark.qemu
@pytest.mark.timeout(600)
@examples(3, phases=[Phase.reuse, Phase.generate])  # shrinking a story of real VMs would take for ever
@given(story=stories)
def test_clones_booted_and_simulated_vms_agree(
    template_spec: MachineSpec, template: Template, story: list[Operation]
) -> None:
    for operation in story:
        event(type(operation).__name__)
    expected = trio.run(tell, simulated(ProducerKind.DIRECT), story)
    for kind in ProducerKind:
        with tempfile.TemporaryDirectory(prefix="vmpool-") as name, nothing_left(Path(name)):
            store = TemplateStore(template.directory)
            subject = QemuProducer(kind=kind, spec=template_spec, home=Path(name), store=store)
            outcomes = trio.run(functools.partial(tell, subject, story))
        for operation, outcome, simulation in zip(story, outcomes, expected, strict=True):
            assert outcome == simulation, f"{kind.value}: {operation}"


@examples(200)
@given(story=stories)
@in_virtual_time
async def test_simulated_vms_agree_however_they_were_made(story: list[Operation]) -> None:
    first, second = [await tell(simulated(kind), story) for kind in ProducerKind]
    assert first == second
