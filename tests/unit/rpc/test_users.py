"""What each user may have at the edge: the counting, without sockets."""

from __future__ import annotations

import os

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pool.rpc.flood import CONNECT, USER_CAPACITY
from pool.rpc.users import (
    COURTESY,
    MAX_KNOWN_USERS,
    RESERVED_CALLS,
    RESERVED_CONNECTIONS,
    TURNED_AWAY_IN_ALL,
    TURNED_AWAY_PER_USER,
    RequestBytes,
    User,
    Users,
)
from pool.settings.limits import EdgeLimits
from pool.settings.permissions import Caller, Permitted

ALICE, BOB = 1000, 1001


def users(*, access: Permitted | None = None, **limits: int) -> Users:
    return Users(access=access or Permitted(uids=frozenset({0, ALICE, BOB})), limits=EdgeLimits(**limits))


def caller(uid: int, *groups: int) -> Caller:
    return Caller(uid=uid, gid=uid, groups=frozenset(groups))


def entered(users: Users, uid: int, *, now: float = 0.0) -> Status | None:
    """None: it was let in."""
    _, refusal = users.enter(caller(uid), now=now)
    return None if refusal is None else refusal.status


@pytest.mark.parametrize(
    ("who", "admitted"),
    [
        (caller(0), True),
        (caller(ALICE), True),
        (caller(7), False),
        (caller(7, 42), True),
        (Caller(uid=7, gid=42), True),
    ],
)
def test_a_uid_or_any_of_its_groups_admits(who: Caller, admitted: bool) -> None:
    assert Permitted(uids=frozenset({0, ALICE}), gids=frozenset({42})).permits(who) is admitted


def test_a_stranger_is_refused_with_the_table_to_change() -> None:
    _, refusal = users().enter(caller(7), now=0)
    assert refusal is not None
    assert refusal.status is Status.PERMISSION_DENIED
    assert refusal.message == "uid 7 may not use this service; ask its administrator to allow it in [access]"


def test_one_users_connections_leave_those_of_others() -> None:
    everybody = users(connections_per_user=2)
    assert [entered(everybody, ALICE) for _ in range(3)] == [None, None, Status.RESOURCE_EXHAUSTED]
    assert entered(everybody, BOB) is None


def test_a_connection_that_ends_makes_room() -> None:
    everybody = users(connections_per_user=1)
    alice, _ = everybody.enter(caller(ALICE), now=0)
    everybody.leave(alice)
    assert entered(everybody, ALICE) is None


def test_the_last_connections_are_for_root_and_the_services_user() -> None:
    everybody = users(connections=RESERVED_CONNECTIONS + 1)
    assert [entered(everybody, ALICE), entered(everybody, BOB)] == [None, Status.RESOURCE_EXHAUSTED]
    assert [entered(everybody, os.geteuid()) for _ in range(RESERVED_CONNECTIONS)] == [None] * RESERVED_CONNECTIONS
    assert entered(everybody, 0) is Status.RESOURCE_EXHAUSTED


def test_who_opens_connections_without_end_is_slowed_down_and_nobody_else() -> None:
    everybody = users(connections_per_user=10**6, connections=10**6)
    let_in = sum(entered(everybody, ALICE) is None for _ in range(USER_CAPACITY))
    assert let_in == USER_CAPACITY // CONNECT
    assert entered(everybody, BOB) is None
    assert entered(everybody, ALICE, now=60) is None


def test_few_at_a_time_are_told_why() -> None:
    everybody = users()
    stranger, _ = everybody.enter(caller(7), now=0)
    told = sum(everybody.begin_turning_away(stranger, now=0) for _ in range(100))
    assert told == TURNED_AWAY_PER_USER
    everybody.end_turning_away(stranger)
    assert everybody.begin_turning_away(stranger, now=0)
    for uid in range(8, 100):
        other, _ = everybody.enter(caller(uid), now=0)
        told += sum(everybody.begin_turning_away(other, now=0) for _ in range(100))
    assert told == TURNED_AWAY_IN_ALL


def test_who_comes_again_and_again_is_told_a_few_times_a_second() -> None:
    everybody = users()
    stranger, _ = everybody.enter(caller(7), now=0)

    def told(now: float) -> int:
        count = 0
        for _ in range(COURTESY + 2):
            if everybody.begin_turning_away(stranger, now=now):
                count += 1
                everybody.end_turning_away(stranger)
        return count

    assert told(0) == COURTESY
    assert told(0.1) == 0
    assert told(60) == COURTESY


def test_no_more_users_are_remembered_than_have_something() -> None:
    everybody = users(access=Permitted(uids=frozenset(range(10**6))))
    for uid in range(3 * MAX_KNOWN_USERS):
        user, refusal = everybody.enter(caller(uid), now=uid * 10.0)
        assert refusal is None
        everybody.leave(user)
    assert len(everybody._known) <= MAX_KNOWN_USERS


def alice(**limits: int) -> User:
    return User(uid=ALICE, limits=EdgeLimits(**limits))


def test_calls_end_at_the_limit_and_those_that_give_something_back_later() -> None:
    user = alice(calls_per_user=3)
    acquires = [user.begin_call("/vmpool.v1.Pool/Acquire") for _ in range(4)]
    assert acquires[:3] == [None] * 3
    assert acquires[3] is not None
    assert acquires[3].status is Status.RESOURCE_EXHAUSTED
    assert "(limits.calls_per_user)" in str(acquires[3].message)
    for method in ("Pool/Status", "Pool/Release", "Pool/Renew", "Admin/Drain"):
        assert user.begin_call(f"/vmpool.v1.{method}") is None
    for _ in range(RESERVED_CALLS - 4):
        assert user.begin_call("/vmpool.v1.Pool/Status") is None
    assert user.begin_call("/vmpool.v1.Pool/Status") is not None
    user.end_call()
    assert user.begin_call("/vmpool.v1.Pool/Status") is None


def test_commands_end_at_the_limit() -> None:
    user = alice(execs_per_user=1)
    with user.guest_stream():
        with pytest.raises(GRPCError, match=r"limits\.execs_per_user"), user.guest_stream():
            pass
        assert user.output.streams == 1
    with user.guest_stream():
        pass


def test_a_request_counts_until_the_next_or_the_end() -> None:
    user = alice(request_bytes_per_user=100)
    one, other = RequestBytes(user=user), RequestBytes(user=user)
    one.begin(60)
    with pytest.raises(GRPCError, match=r"limits\.request_mib_per_user"):
        other.begin(50)
    one.begin(10)
    other.begin(50)
    other.add(40)
    with pytest.raises(GRPCError):
        one.add(1)
    one.end()
    other.end()
    other.end()
    assert user.request_bytes == 0
