"""The tables `[access]` and `[limits]`, and the keys of `[service]` that confine."""

from __future__ import annotations

import grp
import os
import pwd

import pytest

from pool.assembly.service import server_settings
from pool.rpc.server import ServerSettings
from pool.settings.config import ConfigError, Settings, parse_settings
from pool.settings.limits import WATCHERS_PER_USER, EdgeLimits
from pool.settings.permissions import Permitted
from vmm.words.confinement import Requirement

USER = pwd.getpwuid(os.geteuid())
GROUP = grp.getgrgid(65534)


def parse(text: str) -> Settings:
    return parse_settings(f"{text}\n[profiles.a]", source="vmpool.toml")


def test_without_the_tables_all_is_as_without_settings() -> None:
    settings = parse("")
    assert server_settings(settings.access, settings.limits) == ServerSettings()
    assert settings.access.socket_gid is None
    assert (settings.service.qemu_user, settings.service.cgroups) == ("auto", Requirement.AUTO)


def test_users_and_groups_are_named_or_numbered() -> None:
    access = parse(
        f'[access]\nusers = ["{USER.pw_name}", 4242]\ngroups = ["{GROUP.gr_name}", 4343]\nsocket_group = 4343'
    ).access
    assert access.uids == {0, os.geteuid(), USER.pw_uid, 4242}
    assert access.gids == {GROUP.gr_gid, 4343}
    assert access.socket_gid == 4343
    assert parse(f'[access]\nusers = [1]\nsocket_group = "{GROUP.gr_name}"').access.socket_gid == GROUP.gr_gid


def test_who_may_describe_machines_is_named_as_who_may_call() -> None:
    permitted = parse(
        f'[access.custom_machines]\nusers = ["{USER.pw_name}", 4242]\ngroups = ["{GROUP.gr_name}", 4343]'
    ).access.may_describe_machines
    assert permitted.uids == {0, os.geteuid(), USER.pw_uid, 4242}
    assert permitted.gids == {GROUP.gr_gid, 4343}
    assert parse("").access.may_describe_machines == Permitted(uids=frozenset({0, os.geteuid()}))


def test_limits_reach_the_server() -> None:
    settings = parse("[limits]\nmax_message_mib = 16\nacquire_timeout_s = 5")
    served = server_settings(settings.access, settings.limits)
    assert (served.max_message_bytes, served.acquire_timeout_s) == (16 * 2**20, 5.0)


def test_quotas_reach_the_ledger() -> None:
    text = "[limits]\nmax_open_requests = 7\nrequests_per_user = 3\nleases_per_user = 0"
    policy = parse(text).limits.policy(cpus=4)
    assert (policy.requests, policy.requests_per_uid, policy.leases_per_uid) == (7, 3, 0)


def test_no_quota_is_infinite_unless_it_is_made_so_large() -> None:
    policy = parse("").limits.policy(cpus=4)
    assert (policy.requests, policy.requests_per_uid, policy.leases_per_uid) == (1000, 100, 256)
    large = "\n".join(f"{key} = 1000000" for key in ("max_open_requests", "requests_per_user", "leases_per_user"))
    policy = parse(f"[limits]\n{large}").limits.policy(cpus=4)
    assert policy.requests == policy.requests_per_uid == policy.leases_per_uid == 1_000_000


def test_what_one_user_may_have_reaches_the_server() -> None:
    settings = parse(
        "[limits]\nconnections_per_user = 1\ncalls_per_user = 2\nexecs_per_user = 3\nrequest_mib_per_user = 5"
    )
    assert server_settings(settings.access, settings.limits, connections=99).limits == EdgeLimits(
        connections=99, connections_per_user=1, calls_per_user=2, execs_per_user=3, request_bytes_per_user=5 * 2**20
    )
    larger = parse("[limits]\nmax_message_mib = 16").limits
    assert larger.edge(connections=99).request_bytes_per_user == 64 * 2**20


def test_watches_of_one_user_are_as_many_as_the_coordinator_says_unless_they_are_set() -> None:
    assert parse("").limits.watchers_per_user == WATCHERS_PER_USER
    assert parse("[limits]\nwatchers_per_user = 2").limits.watchers_per_user == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[access]\nusers = ["no-such"]\nsocket_group = 1', "access.users: there is no user 'no-such'"),
        ('[access]\ngroups = ["no-such"]\nsocket_group = 1', "access.groups: there is no group 'no-such'"),
        ('[access]\nusers = [1]\nsocket_group = "no-such"', "access.socket_group: there is no group 'no-such'"),
        ('[access.custom_machines]\nusers = ["no-such"]', "access.custom_machines.users: there is no user"),
        (
            '[access.custom_machines]\ngroups = ["no-such"]',
            "access.custom_machines.groups: there is no group",
        ),
        ("[access]\nusers = [1]", "access.socket_group: is not set, so only root"),
        ("[access]\nsocket_group = 1", "access.socket_group: its members reach the socket but may not call; set users"),
        ("[access]\nusers = 'root'", "access.users: must be a list"),
        ("[limits]\nconnections_per_user = 0", "limits.connections_per_user: must be >= 1: 0"),
        (
            "[limits]\nmax_message_mib = 8\nrequest_mib_per_user = 7",
            "limits.request_mib_per_user: 7 is less than max_message_mib = 8; raise it",
        ),
        ("[access]\nusers = [true]", "access.users: must be a name or a number, not True"),
        ("[access]\ngroups = [-1]", "access.groups: must be a name or a number, not -1"),
        ("[access]\nsocket_group = 1.5", "access.socket_group: must be a name or a number, not 1.5"),
        ("[access]\nuids = [1]", "access: unknown key: uids"),
        ("[limits]\nmax_message_mib = 0", "limits.max_message_mib: must be >= 1: 0"),
        ("[limits]\nacquire_timeout_s = 0", "limits.acquire_timeout_s: must be > 0: 0.0"),
        ("[limits]\nmax_open_requests = 0", "limits.max_open_requests: must be >= 1: 0"),
        ("[limits]\nrequests_per_user = 1000001", "limits.requests_per_user: must be <= 1000000: 1000001"),
        ("[limits]\nleases_per_user = -1", "limits.leases_per_user: must be >= 0: -1"),
        ("[service]\nqemu_user = 'no-such'", "service.qemu_user: there is no user 'no-such'; create it"),
        ("[service]\nqemu_user = false", "service.qemu_user: must be a name or a number, not False"),
        ("[service]\ncgroups = 'v2'", "service.cgroups: must be one of 'auto', 'off', 'required'"),
    ],
)
def test_a_fault_is_named_with_its_key(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert any(said.startswith(problem) for said in caught.value.problems), caught.value.problems
