"""Those who want VMs: they ask, wait, hold, renew, release, ask again with the same key, or go away at any moment."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Final

import attrs
import trio

from pool.core.coordinator import Coordinator
from pool.core.requests import RefusedError
from pool.ledger.effects import RefusalCode
from pool.ledger.policy import OnEmpty
from pool.ledger.records import Lease, Owner
from tests.simulation.guest_work import GuestWork
from tests.simulation.incarnation import Incarnation, ServiceGoneError
from tests.simulation.plan import GREEDY_UID, MAX_TTL_S, UIDS
from vmm.words.leases import LeaseRequest
from vmm.words.wishes import Wishes

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

LATE_S: Final = 0.001
"""An answer comes at its deadline at the latest, on a clock that stands still while anybody has something to do."""


WORKS: Final = 0.3
"""How often a client does something in its VM."""

GREEDY_NUMBER: Final = 100
"""Of the first greedy client."""

GREEDY_EACH_S: Final = 5.0
"""The greedy user's clients come at multiples of this."""


class UnansweredError(Exception):
    """There was no answer in time; its client gives up."""


@attrs.frozen(kw_only=True)
class Request:
    """What a client asks for; it asks for the same with the same key if the service goes away meanwhile."""

    profile: str
    on_empty: OnEmpty | None
    patience_s: float
    lease: LeaseRequest

    @classmethod
    def draw(cls, simulation: Simulation, random: Random, *, name: str) -> Request:
        bound = random.random() < 0.3
        profile = random.choice(simulation.plan.profiles).name
        on_empty = random.choice([None, OnEmpty.WAIT, OnEmpty.WAIT, OnEmpty.BOOT, OnEmpty.BOOT, OnEmpty.FAIL])
        key = random.choice(["", "", "k1", "k2", f"k{random.randint(3, 99)}"])
        return cls(
            profile=profile,
            on_empty=on_empty,
            patience_s=random.choice([0.0, 0.5, 3.0, 20.0, 20.0, math.inf]),
            lease=LeaseRequest(
                key=key,
                name=name,
                labels={"key": key},  # the same for all who may have the lease
                ttl_s=random.choice([math.inf, 20.0]) if bound else random.choice([2.0, 10.0, 30.0, MAX_TTL_S]),
                bound=bound,
                wishes=Wishes(
                    vcpus=random.choice([None, None, None, 2]),
                    memory_mib=random.choice([None, None, None, 512, 1024]),
                ),
            ),
        )


async def run_client(simulation: Simulation, number: int) -> None:
    """A few visits, one after the other, while the busy time lasts."""
    random = simulation.randomness.of(f"client {number}")
    names = simulation.randomness.of(f"names of client {number}")
    works = simulation.randomness.of(f"work of client {number}")
    owner = Owner(uid=random.choice(UIDS))
    client = _Client(simulation=simulation, number=number, random=random, names=names, works=works, owner=owner)
    for _ in range(random.randint(1, 6)):
        await trio.sleep(random.choice([0.0, random.expovariate(1 / 6.0)]))
        if simulation.weather.quiet:
            return
        await client.visit()


async def run_greedy_client(simulation: Simulation, number: int) -> None:
    """Visits when all of its user's do."""
    random = simulation.randomness.of(f"greedy client {number}")
    names = simulation.randomness.of(f"names of greedy client {number}")
    works = simulation.randomness.of(f"work of greedy client {number}")
    client = _Client(
        simulation=simulation,
        number=GREEDY_NUMBER + number,
        random=random,
        names=names,
        works=works,
        owner=Owner(uid=GREEDY_UID),
    )
    for _ in range(6):
        await trio.sleep(GREEDY_EACH_S - trio.current_time() % GREEDY_EACH_S)
        if simulation.weather.quiet:
            return
        await client.visit()


@attrs.define(eq=False, kw_only=True)
class _Client:
    simulation: Simulation
    number: int
    random: Random
    names: Random
    works: Random
    owner: Owner

    async def visit(self) -> None:
        request = Request.draw(self.simulation, self.random, name=self.names.choice(["", "", "", "one", "two"]))
        leaves = self.random.random() < 0.3
        patience = self.random.choice([0.0, self.random.uniform(0.0, 2.0), self.random.uniform(0.0, 20.0)])
        rounds = self.random.randint(0, 40)
        async with trio.open_nursery() as nursery:
            if leaves:
                nursery.start_soon(self._leave, nursery.cancel_scope, patience, rounds)
            try:
                await self._use(request, nursery)
            except RefusedError as refused:
                self._say(refused.refusal.code.value)
            except (ServiceGoneError, UnansweredError) as error:
                self._say(type(error).__name__)
            nursery.cancel_scope.cancel(reason="the visit is over")

    async def _leave(self, scope: trio.CancelScope, after_s: float, rounds: int) -> None:
        """At any moment: so long, and so many rounds of the scheduler later."""
        await trio.sleep(after_s)
        for _ in range(rounds):
            await trio.lowlevel.checkpoint()
        self._say("goes away")
        scope.cancel(reason="the client went away")

    async def _use(self, request: Request, nursery: trio.Nursery) -> None:
        """From asking to giving back. Raises RefusedError, ServiceGoneError."""
        lease, service = await self._acquire_again_and_again(request)
        if self.works.random() < WORKS:
            nursery.start_soon(self._work(lease).run)
        hold_s = self.random.choice([0.0, self.random.uniform(0.0, 3.0), self.random.uniform(0.0, 30.0)])
        try:
            for _ in range(self.random.choice([0, 0, 1, 2])):
                await trio.sleep(hold_s / 3)
                await self._renew(lease)
            if self.random.random() < 0.2:
                await self._ask_again(request)
            with trio.move_on_after(hold_s):
                if request.lease.bound:
                    await service.gone.wait()  # the call breaks
                    lease, service = await self._acquire_again_and_again(request)
                await trio.sleep_forever()
        finally:
            if request.lease.bound:
                self._hang_up(service, lease)
        if not request.lease.bound and self.random.random() < 0.7:
            await self._release(lease)

    def _work(self, lease: Lease) -> GuestWork:
        return GuestWork(
            simulation=self.simulation, lease=lease, owner=self.owner, number=self.number, random=self.works
        )

    async def _acquire_again_and_again(self, request: Request) -> tuple[Lease, Incarnation]:
        """As long as services go away: with the key it is the same lease, without it is another one."""
        while True:
            service = await self.simulation.serving()
            try:
                return await self._acquire(service, request), service
            except ServiceGoneError:
                self._say("the service is gone; asks again")
                await trio.sleep(0.1)

    async def _acquire(self, service: Incarnation, request: Request) -> Lease:
        self._say(f"asks {service.name} for {request}")
        now, books = trio.current_time(), self.simulation.books
        if request.lease.bound:
            books.joining(self.owner, request.lease.key)
        deadline = now + request.patience_s
        answered = False
        with trio.move_on_at(deadline + LATE_S) as late:
            try:
                lease = await service.call(lambda coordinator: self._ask(coordinator, request, deadline=deadline))
            except (RefusedError, ServiceGoneError):
                answered = True
                raise
            answered = True
        self.simulation.findings.check(
            "requests_are_answered_in_time", answered or not late.cancelled_caught, lambda: f"{request} of {now}"
        )
        if not answered:
            raise UnansweredError
        # The reply is on its way, and its caller may go away before it has read it.
        try:
            for _ in range(self.random.choice([0, 1, 5])):
                await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            service.give_back(lease)
            raise
        if service.is_dead:
            raise ServiceGoneError
        self._say(f"has {lease.lease_id}")
        books.granted(lease)
        if lease.request.name:
            await self._find(service, lease)
        return lease

    async def _find(self, service: Incarnation, lease: Lease) -> None:
        """By its name, as another process of the same user would. If it is not found, it has ended."""

        async def find(coordinator: Coordinator) -> Lease:
            return coordinator.find_lease(name=lease.request.name, owner=self.owner)

        try:
            found = (await service.call(find)).lease_id
        except RefusedError:
            found = ""
        binds = self.simulation.books.is_binding(lease)
        self.simulation.findings.check("a_name_leads_to_its_lease", found == lease.lease_id or not binds, found)

    async def _ask(self, coordinator: Coordinator, request: Request, *, deadline: float) -> Lease:
        """Whatever others do, who is within his own quotas is not refused."""
        quotas = coordinator.service
        waiting, uid = self.simulation.asking[coordinator], self.owner.uid
        within = waiting[uid] < quotas.requests_per_uid
        has = waiting[uid] + sum(lease.owner.uid == uid for lease in coordinator.leases())
        within = within and has < quotas.leases_per_uid
        waiting[uid] += 1
        code = None
        try:
            return await coordinator.acquire(
                profile=request.profile,
                owner=self.owner,
                request=request.lease,
                on_empty=request.on_empty,
                deadline=deadline,
            )
        except RefusedError as refused:
            code = refused.refusal.code
            raise
        finally:
            waiting[uid] -= 1
            shares = code is RefusalCode.CROWDED or (code is RefusalCode.QUOTA and within)
            self.simulation.findings.check("nobody_is_refused_for_what_others_ask", not shares, lambda: (code, waiting))

    async def _ask_again(self, request: Request) -> None:
        """With the same key while it has the lease: a retry of somebody whose answer was slow."""
        if not request.lease.key or request.lease.bound:
            return
        try:
            await self._acquire(await self.simulation.serving(), request)
        except (RefusedError, ServiceGoneError, UnansweredError) as error:
            self._say(f"asked again: {type(error).__name__}")

    async def _renew(self, lease: Lease) -> None:
        ttl_s = self.random.choice([1.0, 10.0, MAX_TTL_S])
        service, books = await self.simulation.serving(), self.simulation.books
        books.renewing(lease)
        try:
            with self._at_once():
                renewed = await service.call(
                    lambda coordinator: coordinator.renew(lease.lease_id, owner=self.owner, ttl_s=ttl_s)
                )
                books.renewed(renewed)
                self._say(f"renewed {lease.lease_id} until {renewed.expires_at:.9f}")
        except RefusedError as refused:
            self._say(f"{lease.lease_id} not renewed: {refused.refusal.code.value}")
            books.renewal_refused(lease)
        except ServiceGoneError:
            self._say(f"{lease.lease_id} perhaps renewed")

    async def _release(self, lease: Lease) -> None:
        """Until a service has said that it is done, or that there is no such lease."""
        books = self.simulation.books
        while True:
            service = await self.simulation.serving()
            books.loose(lease)
            try:
                with self._at_once():
                    await service.call(lambda coordinator: coordinator.release(lease.lease_id, owner=self.owner))
                    books.release_confirmed(lease)
                    self._say(f"released {lease.lease_id}")
            except ServiceGoneError:
                continue
            return

    def _hang_up(self, service: Incarnation, lease: Lease) -> None:
        """The end of the call that holds a lease: by the client, or because the connection broke."""
        if not service.is_dead:
            self.simulation.books.loose(lease)
            service.give_back(lease)

    def _at_once(self) -> _AtOnce:
        return _AtOnce(self.simulation)

    def _say(self, what: str) -> None:
        self.simulation.trace.add(f"client {self.number}", what)


class _AtOnce:
    """What needs no VM is answered without waiting for anything."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._late = trio.move_on_after(1.0)

    def __enter__(self) -> None:
        self._late.__enter__()

    def __exit__(self, *error: object) -> bool | None:
        caught = self._late.__exit__(*error)  # type: ignore[arg-type]
        self._simulation.findings.check("requests_are_answered_in_time", not self._late.cancelled_caught)
        return caught
