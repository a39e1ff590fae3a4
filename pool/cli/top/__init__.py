"""`vmpool top`: a live view of the service."""

from __future__ import annotations

import os
import select
import signal
import threading
from pathlib import Path

import click
import trio

from actors.errors import describe
from pool.cli.connection import ask_service
from pool.cli.options import EXIT_USAGE, failure, socket_option
from pool.cli.output import say
from pool.cli.signals import SignalledError, Signals

_HOW_TO_INSTALL = (
    "the live view needs {name}, which is not installed: `.venv/bin/pip install -e '.[top]'` in the checkout (for a "
    "wheel see docs/guide.md, Watching and administering), or use `vmpool top --once`"
)


@click.command()
@click.option("--once", is_flag=True, help="Print one view as plain text, and exit.")
@socket_option
def top(*, once: bool, socket_path: Path) -> None:
    """Show pools, VMs, leases, latencies and events, live.

    Keys: d drains or undrains the selected profile, e evicts the selected VM, c shows its console, tab goes to the next
    table, q or Ctrl-C quits.

    The view waits for a service that restarts.
    """
    if once:
        from pool.cli.top.plain import look_once  # noqa: PLC0415 - the live view does not need it

        say(ask_service(socket_path, look_once))
        return
    if not all(os.isatty(descriptor) for descriptor in (0, 1, 2)):
        raise failure("the live view needs a terminal; `vmpool top --once` prints one view", code=EXIT_USAGE)
    try:
        from pool.cli.top.app import show  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise failure(_HOW_TO_INSTALL.format(name=error.name), code=EXIT_USAGE) from error
    threading.Thread(target=_end_with_terminal, args=(0,), daemon=True).start()
    signals = Signals()

    async def watch() -> int:
        with signals.heeded():
            return await show(socket_path)

    try:
        code = trio.run(watch)
    except* SignalledError as errors:
        raise failure(describe(errors), code=signals.exit_code) from None
    raise SystemExit(code)


def _end_with_terminal(terminal: int) -> None:
    """Ends the process once the terminal has been closed, even if SIGHUP is ignored.

    Then there is nothing to restore, and textual waits for ever to be rid of what it has written. Hence a thread.
    """
    poll = select.poll()
    poll.register(terminal, 0)  # that it has been hung up is told unasked
    poll.poll()
    os._exit(128 + signal.SIGHUP)
