"""Requests that describe a machine, over the wire: served from the pool, or booted and handed out running."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pool.rpc.server import ServerSettings
from pool.settings.config import ProfileSettings
from pool.settings.permissions import Permitted, default_uids
from tests.unit.core.machines import image, make_matcher
from tests.unit.rpc.raw import ACQUIRE, RELEASE, STATUS, connected
from tests.unit.rpc.served import Served, serving
from vmm.simulated import BootFails, Fault
from vmm.simulated.machine import Power
from vmpool.wire.generated.vmpool import v1 as wire

STRANGER = 4242

FOR_STRANGERS = ServerSettings(allowed_uids=frozenset({STRANGER, *default_uids()}))

ALL = Permitted(uids=FOR_STRANGERS.allowed_uids)


@asynccontextmanager
async def matching(
    home: Path, *, name: str = "default", lease_ttl_s: float = 3600, **rest: Any
) -> AsyncIterator[Served]:
    settings = ProfileSettings(**image(home, "pool"), max_vcpus=4, max_memory_mib=1024, lease_ttl_s=lease_ttl_s)
    service = serving(
        home,
        size=1,
        make_matcher=lambda host: make_matcher({name: settings}, base=name, launch=host.launch),
        profile=name,
        lease_ttl_s=lease_ttl_s,
        **rest,
    )
    async with service as served:
        await served.until(lambda: served.coordinator.views()[0].ready == 1)
        yield served


async def ask(served: Served, path: str, request: Any, reply: type[Any]) -> tuple[Any, str, str]:
    async with connected(served.path) as raw:
        call = await raw.request(path, request)
        message = await raw.message(call, reply)
        return (message, *await raw.status(call))


async def acquire(served: Served, request: wire.AcquireRequest) -> tuple[wire.AcquireReply, wire.Lease, wire.Match]:
    reply, *_status = await ask(served, ACQUIRE, request, wire.AcquireReply)
    assert isinstance(reply, wire.AcquireReply), _status
    assert reply.lease is not None
    assert reply.match is not None
    return reply, reply.lease, reply.match


def own(**config: str) -> wire.AcquireRequest:
    return wire.AcquireRequest(config=wire.VmConfig(**config))


async def test_a_machine_that_the_pool_has_is_served_from_it(vm_home: Path) -> None:
    async with matching(vm_home) as served:
        reply, lease, match = await acquire(served, own())
        assert lease.profile == match.profile == "default"
        assert match.mismatches == []
        assert reply.timings is not None
        assert reply.timings.was_ready


async def test_another_is_booted_and_handed_out_running(vm_home: Path) -> None:
    async with matching(vm_home) as served:
        reply, lease, match = await acquire(served, own(kernel_parameters="panic=1"))
        assert (match.profile, lease.made_by) == ("", wire.ProducerKind.DIRECT)
        assert [(found.profile, found.fields) for found in match.mismatches] == [("default", ["kernel_parameters"])]
        machine = served.machine(lease.lease_id)
        assert machine.spec.kernel_parameters == "panic=1"
        assert machine.state.value.power is Power.RUNNING
        assert reply.timings is not None
        assert not reply.timings.was_ready
        status, *_ = await ask(served, STATUS, wire.StatusRequest(), wire.StatusReply)
        assert status.fallbacks == 1
        assert [profile.name for profile in status.profiles] == ["default"]
        assert [found.profile for found in status.leases] == [lease.profile]


async def test_two_requests_with_one_configuration_share_a_page_which_closes_with_the_last_vm(vm_home: Path) -> None:
    async with matching(vm_home) as served:
        leases = [(await acquire(served, own(cpu_model="qemu64")))[1] for _ in range(2)]
        assert leases[0].profile == leases[1].profile
        assert set(served.coordinator._own_pages) == {leases[0].profile}
        for lease in leases:
            assert lease.profile in served.coordinator._own_pages
            await ask(served, RELEASE, wire.ReleaseRequest(lease_id=lease.lease_id), wire.ReleaseReply)
        await served.until(lambda: served.coordinator._own_pages == {})
        await served.until(lambda: len(served.host.alive) == 1)
        _, again, _ = await acquire(served, own(cpu_model="qemu64"))
        assert again.profile == leases[0].profile


async def test_a_configuration_whose_boot_fails_is_told_and_leaves_nothing(vm_home: Path) -> None:
    def faults(number: int) -> tuple[Fault, ...]:
        return (BootFails(reason="no such CPU"),) if number else ()

    async with matching(vm_home, faults=faults) as served:
        _, status, message = await ask(served, ACQUIRE, own(cpu_model="nonesuch"), wire.AcquireReply)
        assert status == "14"
        assert "no such CPU" in message
        await served.until(lambda: served.coordinator._own_pages == {} and len(served.host.alive) == 1)


async def test_not_to_boot_is_not_to_have_one(vm_home: Path) -> None:
    async with matching(vm_home) as served:
        request = wire.AcquireRequest(config=wire.VmConfig(cpu_model="qemu64"), on_empty=wire.OnEmpty.FAIL)
        _, status, message = await ask(served, ACQUIRE, request, wire.AcquireReply)
        assert status == "8"
        assert "no VM is ready" in message
        assert served.coordinator._own_pages == {}


async def test_who_would_wait_gets_one_booted(vm_home: Path) -> None:
    """There is no pool that would ever have it."""
    async with matching(vm_home) as served:
        request = wire.AcquireRequest(config=wire.VmConfig(cpu_model="qemu64"), on_empty=wire.OnEmpty.WAIT)
        _, lease, _ = await acquire(served, request)
        assert served.machine(lease.lease_id).spec.cpu_model == "qemu64"


@pytest.mark.parametrize("name", ["default", "small"])
@pytest.mark.parametrize("config", [{}, {"cpu_model": "qemu64"}], ids=["of the pool", "its own"])
async def test_a_lease_ends_by_itself_as_the_profile_has_it(vm_home: Path, name: str, config: dict[str, str]) -> None:
    """Whatever the profile is called; also if the machine is the request's own."""
    async with matching(vm_home, name=name, lease_ttl_s=100) as served:
        _, lease, _ = await acquire(served, own(**config))
        assert 0 < lease.expires_in_ms <= 100_000


async def test_the_same_key_gives_the_same_lease(vm_home: Path) -> None:
    async with matching(vm_home) as served:
        request = wire.AcquireRequest(config=wire.VmConfig(cpu_model="qemu64"), idempotency_key="job-7")
        _, first, _ = await acquire(served, request)
        _, again, match = await acquire(served, request)
        assert first.lease_id == again.lease_id
        assert match.profile == ""


async def test_files_of_the_host_are_not_for_strangers(vm_home: Path, call_as: Callable[[int], None]) -> None:
    async with matching(vm_home, settings=FOR_STRANGERS, may_describe_machines=ALL) as served:
        call_as(STRANGER)
        for path in ("/etc/shadow", "/nowhere"):
            _, status, message = await ask(served, ACQUIRE, own(kernel=path), wire.AcquireReply)
            assert status == "7"
            assert message.startswith(f"config.kernel: no profile uses {path}; only root")
        _, lease, _ = await acquire(served, own(kernel=str(vm_home / "pool.kernel")))
        assert lease.profile == "default"


async def test_who_may_not_describe_a_machine_is_told_the_key(vm_home: Path, call_as: Callable[[int], None]) -> None:
    """Not even one that a pool has: he can name its profile."""
    async with matching(vm_home, settings=FOR_STRANGERS) as served:
        call_as(STRANGER)
        for request in (own(), own(cpu_model="qemu64")):
            _, status, message = await ask(served, ACQUIRE, request, wire.AcquireReply)
            assert status == "7"
            assert message == (
                "config: uid 4242 may not describe a machine; name a profile, or ask the service's administrator to "
                "allow it in access.custom_machines"
            )
        _, status, _ = await ask(served, ACQUIRE, wire.AcquireRequest(), wire.AcquireReply)
        assert status == "0"


@pytest.mark.parametrize(
    "permitted", [Permitted(uids=frozenset({STRANGER})), Permitted(gids=frozenset({STRANGER}))], ids=["user", "group"]
)
async def test_who_may_is_named_or_in_a_group(
    vm_home: Path, call_as: Callable[[int], None], permitted: Permitted
) -> None:
    async with matching(vm_home, settings=FOR_STRANGERS, may_describe_machines=permitted) as served:
        call_as(STRANGER)
        _, lease, _ = await acquire(served, own(cpu_model="qemu64"))
        assert lease.profile.startswith("own-")


async def test_what_is_more_than_a_feature_of_a_cpu_is_not_for_strangers(
    vm_home: Path, call_as: Callable[[int], None]
) -> None:
    async with matching(vm_home, settings=FOR_STRANGERS, may_describe_machines=ALL) as served:
        _, lease, _ = await acquire(served, own(cpu_model="qemu64,vmx=on"))
        assert lease.profile.startswith("own-"), "for the service's user it is"
        call_as(STRANGER)
        _, status, message = await ask(served, ACQUIRE, own(cpu_model="qemu64,vmx=on"), wire.AcquireReply)
        assert (status, message.partition(":")[0]) == ("7", "config.cpu_model")
        assert "vmx=on" in message


async def test_a_machine_is_no_larger_than_its_profile_allows(vm_home: Path) -> None:
    async with matching(vm_home) as served:
        request = wire.AcquireRequest(config=wire.VmConfig(cpu_model="qemu64"), vcpus=5)
        _, status, message = await ask(served, ACQUIRE, request, wire.AcquireReply)
        assert status == "3"
        assert message == "vcpus: 5 exceeds the maximum of profile default (4); request less, or raise max_vcpus"


async def test_what_qemu_prints_of_a_machine_is_for_the_log_alone(vm_home: Path) -> None:
    """Neither for whoever described it, nor for those who watch."""

    def faults(number: int) -> tuple[Fault, ...]:
        return (BootFails(reason="QEMU is gone: exit status 1; QEMU said: the host's secret"),) if number else ()

    async with matching(vm_home, faults=faults) as served:
        async with served.client() as client, client.watch() as changes:
            heard = [str(await anext(changes))]
            with capture_logs() as logs:
                _, status, message = await ask(served, ACQUIRE, own(cpu_model="qemu64"), wire.AcquireReply)
            assert (status, "secret" in message) == ("14", False)
            assert message.endswith("QEMU is gone: exit status 1; the service's log has QEMU's output")
            while "a VM of a caller's own configuration was lost" not in heard[-1]:
                heard.append(str(await anext(changes)))
        status_reply, *_ = await ask(served, STATUS, wire.StatusRequest(), wire.StatusReply)
        assert "secret" not in f"{heard}{status_reply}"
        assert "exit status" not in f"{heard}"
        assert any("the host's secret" in str(line.get("error")) for line in logs)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"kernel": "vmlinuz"}, "config.kernel: 'vmlinuz' is not an absolute path"),
        ({"initrd": "/a\0b"}, r"config.initrd: '/a\x00b' is not an absolute path"),
        ({"kernel_parameters": "a\nb"}, "config.kernel_parameters: must be printable ASCII, at most 1024"),
        ({"kernel_parameters": "a\n"}, "config.kernel_parameters: must be"),
        ({"kernel_parameters": "\N{SNOWMAN}"}, "config.kernel_parameters: must be"),
        ({"kernel_parameters": "x" * 1025}, "config.kernel_parameters: must be"),
        ({"cpu_model": "max host"}, "config.cpu_model: 'max host' is not a CPU model"),
        ({"cpu_model": "help"}, "config.cpu_model: 'help' is not a CPU model; name one of QEMU's"),
        ({"cpu_model": "?"}, "config.cpu_model: '?' is not a CPU model"),
        ({"cpu_model": "max,help"}, "config.cpu_model: 'max,help' has 'help', which is not a feature"),
        ({"cpu_model": "max\n"}, r"config.cpu_model: 'max\n' is not a CPU model"),
        ({"cpu_model": "m" * 1025}, "config.cpu_model: 'mmm"),
    ],
)
async def test_a_bad_value_is_named(vm_home: Path, config: dict[str, str], text: str) -> None:
    async with matching(vm_home) as served:
        _, status, message = await ask(served, ACQUIRE, own(**config), wire.AcquireReply)
        assert (status, message[: len(text)]) == ("3", text)


async def test_a_file_that_is_not_there_is_named(vm_home: Path) -> None:
    async with matching(vm_home) as served:
        _, status, message = await ask(served, ACQUIRE, own(kernel="/nowhere/vmlinuz"), wire.AcquireReply)
        assert status == "9"
        assert message.startswith("kernel: /nowhere/vmlinuz does not exist or cannot be read")


async def test_a_service_without_a_matcher_says_so(served: Served) -> None:
    _, status, message = await ask(served, ACQUIRE, own(), wire.AcquireReply)
    assert (status, message) == ("3", "config: is not supported by this service; name a profile")
