"""Kata's VMCache beside the service's own API: the layer of the service that gives VMs away."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import attrs
import structlog
import trio

from pool.core.coordinator import Coordinator
from pool.kata.cache.endpoint import open_cache_endpoint
from pool.kata.cache.pool_source import PoolSource
from pool.kata.cache.server import CacheServer, serve_cache
from pool.kata.config.settings import CacheSettings
from pool.kata.records.gokinds import Generation
from pool.observe.spans import Spans
from vmm.spec import MachineSpec

_log = structlog.get_logger("vmpool")


@attrs.define(eq=False, kw_only=True)
class CacheLayer:
    endpoint: Path
    sock: socket.socket
    source: PoolSource
    spans: Spans
    generation: Generation
    useless_to_kata: str = ""
    """See `CacheSettings`."""
    _server: CacheServer | None = None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            self._server = await nursery.start(
                partial(serve_cache, source=self.source, sock=self.sock.dup(), spans=self.spans)
            )
            _log.info("VM cache server start", endpoint=str(self.endpoint), kata=self.generation.value)
            if self.useless_to_kata:
                _log.warning("no stock client of Kata's can use these VMs", reason=self.useless_to_kata)
            task_status.started()
        _log.info("VM cache server stop", endpoint=str(self.endpoint))

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()


@attrs.frozen(kw_only=True)
class VmCache:
    """Makes the layer once the rest of the service is there."""

    settings: CacheSettings

    def open_endpoint(self) -> AbstractContextManager[socket.socket]:
        return open_cache_endpoint(self.settings.endpoint)

    def layer(
        self,
        *,
        coordinator: Coordinator,
        specs: Mapping[str, MachineSpec],
        vms_directory: Path,
        sock: socket.socket,
        quit: Callable[[], None],  # noqa: A002 - Kata's name for it
        spans: Spans,
    ) -> CacheLayer:
        """`sock` is the endpoint's; `quit` ends the service."""
        source = PoolSource(
            coordinator=coordinator,
            profile=self.settings.profile,
            spec=specs[self.settings.profile],
            vms_directory=vms_directory,
            vm_config=self.settings.vm_config,
            quit=quit,
        )
        return CacheLayer(
            endpoint=self.settings.endpoint,
            sock=sock,
            source=source,
            spans=spans,
            generation=self.settings.generation,
            useless_to_kata=self.settings.useless_to_kata,
        )
