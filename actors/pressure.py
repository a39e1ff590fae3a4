"""The watcher of the host's memory: reports when the pool should give some back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
import structlog
import trio

from actors.memory import HostMemory, MemoryJudge, MemoryPolicy, MemoryState
from vmm.memory import MemoryReading

_log: Final = structlog.get_logger("vmpool.pressure")


@attrs.define(eq=False, kw_only=True)
class PressureWatcher:
    """Reads every `policy.interval_s`, judges, and reports.

    `report` gets the first verdict, each change of state, and one verdict per interval while memory is low, so that a
    pool that evicts one VM for each evicts no more than is needed. It must not wait. `read` is
    `vmm.memory.read_memory`, or a partial of it; its errors end `run`.
    """

    policy: MemoryPolicy
    read: Callable[[], MemoryReading]
    report: Callable[[HostMemory], None]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Never returns. `task_status.started()` comes with the first verdict. A restart forgets earlier readings."""
        judge = MemoryJudge(policy=self.policy)
        state = MemoryState.OK
        while True:
            # In this task: reading the kernel's files takes microseconds.
            verdict, to_report = judge.judge(self.read(), now=trio.current_time())
            if verdict.state is not state:
                state = verdict.state
                log = _log.warning if state is MemoryState.LOW else _log.info
                log("host memory", state=state.value, reason=verdict.reason)
            if to_report:
                self.report(verdict)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(self.policy.interval_s)
