"""The service: all layers put together, from the lock to the last VM.

Lifetimes nest: the endpoint holds the socket, in it live the coordinator with its VMs and the producers, and in those
the RPC server, which stops first.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import structlog
import trio

from actors.journal import Journal
from actors.pressure import PressureWatcher
from actors.producer import Producer, ShellProducer
from actors.supervisor import NEVER_GIVE_UP, ChildMain, RestartPolicy, Supervised
from actors.uniqueness import Witness
from pool.assembly.backends import make_backend
from pool.core.coordinator import Coordinator, new_id
from pool.core.machines import MachineResolver
from pool.core.matching import Matcher
from pool.core.recovery import recover
from pool.host.descriptors import connections_within, forbid_core_files, raise_limit
from pool.host.endpoint import Endpoint, check_endpoint, open_endpoint
from pool.host.metrics_socket import check_metrics_place, open_metrics_socket
from pool.host.notify import Watchdog, tell, watchdog_interval_s
from pool.host.paths import cache_directory, default_image_directory
from pool.host.premises import Premises
from pool.host.runtime import VmsDirectory, check_vms_directory, open_vms_directory
from pool.observe.metrics import Metrics, open_scrapes
from pool.observe.news import NewsLog
from pool.observe.spans import NO_SPANS, Spans
from pool.producers.kind import Making
from pool.rpc.convert import DEFAULT_PROFILE, ProfileShape
from pool.rpc.server import RpcServer, ServerSettings, serve
from pool.rpc.service import ServiceInfo
from pool.settings.access import AccessSettings
from pool.settings.config import ProfileSettings, Settings
from pool.settings.limits import MIB, MOST_CONNECTIONS, LimitSettings
from vmm.backend import Backend
from vmm.guest.noop import NOT_DONE
from vmm.memory import own_cgroup, read_memory
from vmm.words.backoff import Backoff
from vmm.words.confinement import ConfinementLine
from vmm.words.machines import AgentKind

if TYPE_CHECKING:  # a service without metrics or Kata's cache does not wait for these imports
    from pool.kata.cache.layer import CacheLayer, VmCache
    from pool.observe.scraping import ScrapeServer

_log = structlog.get_logger("vmpool")
_confinement_log = structlog.get_logger("vmpool.confinement")

_RPC_RESTARTS: Final = RestartPolicy(max_restarts=3, window_s=30.0, backoff=Backoff(initial_s=0.1, maximum_s=2.0))
"""An RPC server that dies four times in half a minute will not get better; the service ends and says so."""


async def run_service(
    settings: Settings,
    *,
    socket_path: Path,
    stop: trio.Event,
    takeover: bool = False,
    cache: VmCache | None = None,
    spans: Spans = NO_SPANS,
    backend: Backend | None = None,
    task_status: trio.TaskStatus[Coordinator] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until `stop` is set, then ends in good order: no process, socket or directory of its own is left.

    With `cache` VMs are given away to Kata's clients, too, who may end the service by their Quit.
    VMs that an earlier run left are adopted. With `takeover` a service that is running is asked to leave its own.
    `backend` makes the VMs; None: the one that the settings ask for.
    Raises EndpointError, MissingFileError, ImageError, ConfinementError, TemplateError or SpecError before anything is
    started.
    Cancelled, it ends every VM too, but without statuses for those who wait.
    """
    # QEMU's command lines name places, and tell an orphan by them: they must not depend on where we were started.
    socket_path = socket_path.absolute()  # noqa: ASYNC240 - asks for the working directory, nothing else
    runtime = (settings.service.runtime_directory or socket_path.parent).absolute()
    descriptors = raise_limit()
    _log.debug("descriptors", limit=descriptors)
    forbid_core_files()
    chosen = backend or make_backend(settings)
    resolvers = _resolvers(settings, runtime=runtime, backend=chosen)
    specs = {name: resolver.check() for name, resolver in resolvers.items()}
    for name, profile in settings.profiles.items():
        if place := profile.producer.place(name, runtime=runtime):
            profile.producer.check_place(place, backend=chosen)
    # Before a service that runs is asked to go.
    check_endpoint(socket_path, group=settings.access.socket_gid)
    if settings.metrics.place is not None:
        check_metrics_place(settings.metrics.place, made=socket_path.parent)
    check_vms_directory(runtime)
    for name in (name for name, spec in specs.items() if spec.agent is AgentKind.NOOP):
        _log.warning("nobody in the guests can be asked; this is logged once", profile=name, detail=NOT_DONE)
    own_group = own_cgroup()  # before `confined` moves us: the VMs' groups are below this one
    if takeover:
        # Imported here, as the client is: it is much to import, for what is seldom asked for.
        from pool.assembly.takeover import take_over  # noqa: PLC0415

        await take_over(socket_path, runtime=runtime)
    with (
        open_endpoint(socket_path, group=settings.access.socket_gid) as endpoint,
        open_vms_directory(runtime) as vms,
        chosen.confined(specs, changed=_tell) as confined,
        contextlib.nullcontext() if cache is None else cache.open_endpoint() as cache_socket,
        _metrics_socket(settings) as metrics_socket,
    ):
        confinement = confined.confinement_report()
        for line in confinement.lines:
            _tell(line)
        journal = Journal(directory=vms.path, backend=confined.kind)
        base = DEFAULT_PROFILE if DEFAULT_PROFILE in specs else next(iter(specs))
        recovered = await recover(journal, profiles=settings.profiles, backend=confined, base=base)
        resolvers = _resolvers(settings, runtime=runtime, backend=confined)

        def announce(profile: str, generation: str) -> None:
            coordinator.generation_changed(profile, generation)

        producers = {
            name: settings.profiles[name].producer.make(
                Making(
                    profile=name,
                    resolve=resolver.resolve,
                    backend=confined,
                    vms_directory=vms.path,
                    runtime=runtime,
                    new_vm_id=lambda: new_id("vm"),
                    boot_timeout_s=settings.profiles[name].boot_timeout_s,
                    on_generation=partial(announce, name),
                )
            )
            for name, resolver in resolvers.items()
        }
        witness = Witness()
        news_log = NewsLog()
        coordinator = Coordinator(
            policies={name: settings.profiles[name].policy(spec) for name, spec in specs.items()},
            producers=producers,
            journal=journal,
            found=recovered.found,
            adoptions=recovered.adoptions,
            shell_producers={
                name: producer for name, producer in producers.items() if isinstance(producer, ShellProducer)
            },
            procedures={name: profile.procedure(witness=witness) for name, profile in settings.profiles.items()},
            vigils={name: profile.vigil() for name, profile in settings.profiles.items()},
            service=settings.limits.policy(cpus=len(os.sched_getaffinity(0))),
            watchers_per_user=settings.limits.watchers_per_user,
            readers=(news_log.tell,),
        )
        children: list[Supervised] = []
        metrics = Metrics(
            version=version("vmpool"),
            pool=coordinator,
            available_mib=lambda: read_memory(cgroup=own_group).available_mib,
            restarts=lambda: {child.name: child.statistics().restarts for child in children},
        )
        info = ServiceInfo(
            version=version("vmpool"),
            metrics=metrics,
            shapes={
                name: ProfileShape(
                    vcpus=spec.vcpus,
                    memory_mib=spec.memory_mib,
                    max_vcpus=spec.max_vcpus,
                    max_memory_mib=spec.max_memory_mib,
                    max_vms=settings.profiles[name].max_vms or 0,
                    lease_ttl_s=settings.profiles[name].lease_ttl_s,
                    agent=spec.agent,
                )
                for name, spec in specs.items()
            },
            may_describe_machines=settings.access.may_describe_machines,
            service_uid=os.geteuid(),
            confinement=confinement.states,
            spans=spans,
            matcher=Matcher(
                profiles=settings.profiles,
                specs=specs,
                base=base,
                make_resolver=partial(_resolver, settings, runtime=runtime, backend=confined),
                launch=confined.launch,
                vms_directory=vms.path,
            ),
        )
        layers = _Layers(
            coordinator=coordinator,
            producers=producers,
            endpoint=endpoint,
            vms=vms,
            info=info,
            server_settings=server_settings(
                settings.access,
                settings.limits,
                connections=connections_within(
                    descriptors, vms=sum(profile.most_vms for profile in settings.profiles.values())
                ),
            ),
            watcher=PressureWatcher(
                policy=settings.service.memory,
                read=partial(read_memory, cgroup=own_group),
                report=coordinator.host_memory,
            ),
            news_log=news_log,
            children=children,
            scrapes=None if metrics_socket is None else await open_scrapes(metrics, metrics_socket),
            stop=stop,
        )
        if cache is not None and cache_socket is not None:
            layers.cache = cache.layer(
                coordinator=coordinator,
                specs=specs,
                vms_directory=vms.path,
                sock=cache_socket,
                quit=stop.set,
                spans=spans,
            )
        await layers.run(task_status=task_status)


@attrs.define(eq=False, kw_only=True)
class _Layers:
    coordinator: Coordinator
    producers: Mapping[str, Producer]
    endpoint: Endpoint
    vms: VmsDirectory
    info: ServiceInfo
    server_settings: ServerSettings
    watcher: PressureWatcher
    news_log: NewsLog
    children: list[Supervised]
    """All that were begun."""
    scrapes: ScrapeServer | None = None
    stop: trio.Event
    cache: CacheLayer | None = None
    _server: RpcServer | None = None
    """None before it runs, and after it has crashed, until it is started again."""
    _handing_over: bool = False

    async def run(self, *, task_status: trio.TaskStatus[Coordinator]) -> None:
        async with trio.open_nursery() as outer:
            outer.start_soon(self._supervised("news", self.news_log.run).run)
            await outer.start(self.coordinator.run)
            outer.start_soon(self._supervised("lag", self.coordinator.measures.watch_loop).run)
            if self.scrapes is not None:
                outer.start_soon(self._supervised("metrics", self.scrapes.run).run)
            try:
                await self._serve(outer, task_status=task_status)
            except Exception:
                self.coordinator.let_go()
                raise
            outer.cancel_scope.cancel(reason="the service has ended")
        _log.info("stopped")  # after what the news log had still to say of the last VMs

    async def _serve(self, outer: trio.Nursery, *, task_status: trio.TaskStatus[Coordinator]) -> None:
        for name, producer in self.producers.items():
            outer.start_soon(self._supervised(f"producer of {name}", producer.run).run)
        outer.start_soon(self._supervised("pressure", self.watcher.run).run)
        outer.start_soon(self._supervised("clock", self.coordinator.host_clock.run).run)
        async with trio.open_nursery() as inner:
            await inner.start(self._supervised("rpc", self._run_rpc, _RPC_RESTARTS).run)
            premises = Premises(endpoint=self.endpoint, vms=self.vms, moved=self._listen_anew)
            inner.start_soon(premises.run)
            async with trio.open_nursery() as kata:
                if self.cache is not None:
                    await kata.start(self._supervised("cache", self.cache.run, _RPC_RESTARTS).run)
                _log.info("serving", socket=str(self.endpoint.path), version=self.info.version)
                tell("READY=1")
                self._begin_watchdog(outer)
                task_status.started(self.coordinator)
                await self.stop.wait()
                _log.info("handing over" if self._handing_over else "stopping")
                tell("STOPPING=1")
                if self.cache is not None:
                    self.cache.stop()
            # From here on each VM is the service's, or is not.
            if self._handing_over:
                self.coordinator.keep_held_leases()
            if self._server is not None:
                self._server.stop()
            else:
                inner.cancel_scope.cancel(reason="the RPC server is not to be started again")
            premises.leave()
        if self._handing_over:
            # Not before the calls end: who asked for a lease that is let go would hear that there is none.
            await self.coordinator.hand_over()
        else:
            await self.coordinator.shut_down()

    def _supervised(self, name: str, main: ChildMain, policy: RestartPolicy = NEVER_GIVE_UP) -> Supervised:
        child = Supervised(name=name, main=main, policy=policy)
        self.children.append(child)
        return child

    def _begin_watchdog(self, nursery: trio.Nursery) -> None:
        """In the layer that lasts longest: a service that drains is alive."""
        interval_s = watchdog_interval_s()
        if interval_s is not None:
            watchdog = Watchdog(interval_s=interval_s, check=self.coordinator.prove_alive)
            nursery.start_soon(self._supervised("watchdog", watchdog.run).run)

    def _hand_over(self) -> None:
        """Nothing happens if the service stops already: its VMs are ended, and whoever adopts would find none."""
        if not self.stop.is_set():
            self._handing_over = True
            self.stop.set()

    async def _listen_anew(self) -> None:
        """Without a server there is nothing to do: the next one begins with the new listener."""
        if self._server is not None:
            await self._server.listen_also(self.endpoint.listener.dup())

    async def _run_rpc(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                # The server closes its socket; the endpoint's must outlive it for a restart.
                self._server = await nursery.start(
                    partial(
                        serve,
                        coordinator=self.coordinator,
                        sock=self.endpoint.listener.dup(),
                        info=self.info,
                        hand_over=self._hand_over,
                        settings=self.server_settings,
                    )
                )
                task_status.started()
        finally:
            self._server = None


def _metrics_socket(settings: Settings) -> AbstractContextManager[socket.socket | None]:
    place = settings.metrics.place
    if place is None:
        return contextlib.nullcontext()
    return open_metrics_socket(place, group=settings.access.socket_gid)


def _tell(line: ConfinementLine) -> None:
    (_confinement_log.warning if line.warns else _confinement_log.info)(line.event, **line.figures)


def _resolvers(settings: Settings, *, runtime: Path, backend: Backend) -> dict[str, MachineResolver]:
    return {
        name: _resolver(settings, profile, runtime=runtime, backend=backend)
        for name, profile in settings.profiles.items()
    }


def _resolver(settings: Settings, profile: ProfileSettings, *, runtime: Path, backend: Backend) -> MachineResolver:
    return MachineResolver(
        profile=profile,
        image_directory=settings.service.image_directory or default_image_directory(),
        trial_directory=runtime / "vms",  # found there if this service is killed meanwhile
        cache_directory=cache_directory(),
        backend=backend,
    )


def server_settings(
    access: AccessSettings, limits: LimitSettings, *, connections: int = MOST_CONNECTIONS
) -> ServerSettings:
    return ServerSettings(
        allowed_uids=access.uids,
        allowed_gids=access.gids,
        acquire_timeout_s=limits.acquire_timeout_s,
        max_message_bytes=limits.max_message_mib * MIB,
        limits=limits.edge(connections=connections),
    )
