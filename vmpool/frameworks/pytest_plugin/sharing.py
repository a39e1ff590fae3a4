"""One service for all workers of pytest-xdist: its controller opens it when the first one asks, and keeps it open."""

from __future__ import annotations

import contextlib
import threading
from multiprocessing.connection import Client, Listener
from pathlib import Path

import pytest

_ASK = "service"
_END = "end"


class Door:
    """The controller's end, answered by a thread until `close`. Its address is a socket in a directory of this user."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._workers = 0
        self._listener = Listener(family="AF_UNIX")
        self._thread = threading.Thread(target=self._answer, name="vmpool", daemon=True)
        self._thread.start()

    def admit(self) -> str:
        """One worker more will ask; returns where."""
        self._workers += 1
        return str(self._listener.address)

    def close(self) -> None:
        """Ends the service, if it is the session's own, and waits for that."""
        with Client(self._listener.address, family="AF_UNIX") as caller:
            caller.send(_END)
        self._thread.join()
        self._listener.close()

    def _answer(self) -> None:
        found: Path | Exception | None = None
        with contextlib.ExitStack() as ends:
            while True:
                with self._listener.accept() as caller, contextlib.suppress(EOFError, ConnectionError):  # it has died
                    if caller.recv() == _END:
                        return
                    if found is None:
                        found = self._open(ends)
                    caller.send(found)

    def _open(self, ends: contextlib.ExitStack) -> Path | Exception:
        from vmpool.frameworks.pytest_plugin.service import chosen_pool  # noqa: PLC0415 - many sessions want no VM

        try:
            return ends.enter_context(chosen_pool(self._config, size=self._workers)).socket_path
        except Exception as error:  # noqa: BLE001 - whoever asked raises it
            return error


def ask(address: str) -> Path:
    """A worker's question: the socket of the service. Raises what the controller met."""
    with Client(address, family="AF_UNIX") as controller:
        controller.send(_ASK)
        answer = controller.recv()
    if isinstance(answer, Exception):
        raise answer
    assert isinstance(answer, Path)
    return answer
