"""The hand-out: the steps that make a base VM the caller's. Kata's GetVM from "resume" on."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Final

import attrs
import trio

from actors.errors import describe
from actors.report import check_report
from actors.uniqueness import Witness
from vmm.contract import Vm
from vmm.errors import AgentRequestError, AgentUnreachableError, HotplugError, NotUniqueError, VmmError
from vmm.fresh import FRESH, FreshSources
from vmm.words.facts import HandOutTimings, Obstacle
from vmm.words.preparation import PreparationReport
from vmm.words.wishes import Wishes

HAND_OUT_TIMEOUT_S: Final = 5.0
"""Resume and prepare usually take milliseconds; a guest that needs this long is broken, and its caller waits. Each file
adds the same time again: through qemu-ga it takes four programs. A profile of slow guests sets its own limit."""

GROWTH_TIMEOUT_S: Final = 30.0
"""Added to the limit where CPUs or memory are hot-added: a second under TCG, many for hundreds of GiB."""

PING_TIMEOUT_S: Final = 1.0
"""For a guest that did not fulfil a wish in time to answer a ping."""

_OF_THE_CONTENT: Final = frozenset({"EDQUOT", "EFBIG", "ENOMEM", "ENOSPC"})
"""Error codes about a file's content; all others are about its path."""


class WishRefusedError(Exception):
    """A wish of the caller was refused. `field` is the wish's name in the caller's request."""

    def __init__(self, *, field: str, reason: str, obstacle: Obstacle) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.obstacle = obstacle


UNPREPARED: Final = PreparationReport(reseeded=False, wall_clock_ns=0, hostname="", cpus_online=0, memory_mib=0)
"""The report of a VM that is given away as it is, without a request to its guest."""


@attrs.frozen(kw_only=True)
class HandOutProcedure:
    """How VMs of one pool are handed out."""

    witness: Witness | None = None
    """Strict mode: refuses a VM that repeats values of an earlier one."""
    timeout_s: float = HAND_OUT_TIMEOUT_S
    """Without the time that hot-adding takes."""
    fresh: FreshSources = FRESH

    async def run(self, vm: Vm, wishes: Wishes) -> tuple[PreparationReport, HandOutTimings]:
        """Hot-adds, resumes, reseeds, sets the clock, brings online, renames; then verifies, then writes the files.

        Resume and prepare run side by side: the request lies in the agent's channel when the first vCPU runs. Raises
        VmmError, also in groups, and WishRefusedError: a hand-out that fails leaves a VM without an owner.
        """
        began = trio.current_time()
        resumed_at = grown_at = answered_at = math.nan

        async def resume() -> None:
            nonlocal resumed_at
            await vm.resume()
            resumed_at = trio.current_time()

        limit_s = self.timeout_s + (GROWTH_TIMEOUT_S if wishes.grows else 0.0)
        taking_long = ""
        try:
            with trio.fail_after(limit_s) as limit:
                if wishes.grows:
                    taking_long = await _grow(vm, wishes)
                grown_at = trio.current_time()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(resume)
                    report = await self._prepare(vm, wishes)
                    answered_at = trio.current_time()
                    taking_long = ""
                if isinstance(report, WishRefusedError):
                    raise report
                if vm.is_clone and not report.reseeded:
                    others = "its template's other clones"
                    raise NotUniqueError(vm_id=vm.id, what="random numbers", other=others)
                if self.witness is not None:
                    self.witness.check(vm_id=vm.id, report=report, hostname_chosen=bool(wishes.hostname))
                for number, file in enumerate(wishes.files):
                    limit.deadline = max(limit.deadline, trio.current_time() + self.timeout_s)
                    taking_long = f"files[{number}].data"
                    with _file_refused(number):
                        await vm.agent.put_file(file.path, file.data, mode=file.mode)
        except trio.TooSlowError as error:
            runs = not math.isnan(resumed_at)  # otherwise QEMU did not resume it in time
            if taking_long and runs and await _answers(vm):
                reason = f"the guest answers, but had not done this after {trio.current_time() - began:.1f} s"
                raise WishRefusedError(field=taking_long, reason=reason, obstacle=Obstacle.UNABLE) from error
            raise AgentUnreachableError(
                f"hand-out not done within {limit_s:g} s; its guest is broken, or slow and needs a higher "
                "hand_out_timeout_s"
            ) from error
        return report, HandOutTimings(
            grow_s=grown_at - began,
            resume_s=resumed_at - grown_at,
            prepare_s=answered_at - grown_at,
            total_s=trio.current_time() - began,
        )

    async def _prepare(self, vm: Vm, wishes: Wishes) -> PreparationReport | WishRefusedError:
        """A refusal is returned, not raised, so that it does not end up in a group and other errors come first."""
        random_bytes = 0 if self.witness is None else self.witness.random_bytes
        preparation = self.fresh.preparation(vm_id=vm.id, vm_uuid=vm.uuid, wishes=wishes, random_bytes=random_bytes)
        try:
            report = await vm.agent.prepare(preparation)
            check_report(report, preparation)
        except AgentRequestError as error:
            if error.part not in _wished(wishes):
                raise
            refused = WishRefusedError(field=error.part, reason=describe(error), obstacle=error.obstacle)
            refused.__cause__ = error
            return refused
        if wishes.hostname and report.was_seen and report.hostname != wishes.hostname:
            reason = f"the guest's hostname is still {report.hostname!r}"
            return WishRefusedError(field="hostname", reason=reason, obstacle=Obstacle.UNABLE)
        return report


async def _grow(vm: Vm, wishes: Wishes) -> str:
    """Hot-adds, and returns the wish that takes the time of it; empty if the VM is large enough already."""
    try:
        added = await vm.grow(vcpus=wishes.vcpus or 0, memory_mib=wishes.memory_mib or 0)
    except HotplugError as error:
        # The request was checked against the machine's maximum: what is short here is the host's memory.
        raise WishRefusedError(field=error.field, reason=describe(error), obstacle=Obstacle.EXHAUSTED) from error
    return "memory_mib" if added.memory_mib else "vcpus" if added.vcpus else ""


async def _answers(vm: Vm) -> bool:
    """Whether the guest answers a ping, and so is slow only in fulfilling its request."""
    with trio.move_on_after(PING_TIMEOUT_S), contextlib.suppress(VmmError):
        await vm.agent.ping()
        return True
    return False


def _wished(wishes: Wishes) -> set[str]:
    """The fields of a preparation that the caller wishes for; every hand-out sets the others."""
    wished = {
        "hostname": bool(wishes.hostname),
        "environment": bool(wishes.environment),
        "vcpus": wishes.vcpus is not None,
        "memory_mib": wishes.memory_mib is not None,
    }
    return {field for field, is_wished in wished.items() if is_wished}


@contextlib.contextmanager
def _file_refused(number: int) -> Iterator[None]:
    try:
        yield
    except AgentRequestError as error:
        part = "data" if error.code in _OF_THE_CONTENT else "path"
        raise WishRefusedError(
            field=f"files[{number}].{part}", reason=describe(error), obstacle=error.obstacle
        ) from error
