"""Log lines that clients cause."""

from __future__ import annotations

from structlog.testing import capture_logs

from pool.rpc.repeats import MAX_REMEMBERED, QUIET_S, Repeats


def test_the_first_is_said_at_once_and_the_rest_counted() -> None:
    repeats = Repeats()
    assert [repeats.count("x", now=now) for now in (0.0, 1.0, 2.0)] == [0, None, None]
    assert [repeats.count("x", now=QUIET_S + now) for now in (0.0, 1.0)] == [2, None]
    assert repeats.count("x", now=3 * QUIET_S) == 1


def test_kinds_and_users_do_not_silence_each_other() -> None:
    repeats = Repeats()
    assert [repeats.count(key, now=0.0) for key in (("x", 1), ("x", 2), ("y", 1), ("x", 1))] == [0, 0, 0, None]


def test_what_is_remembered_has_an_end() -> None:
    repeats = Repeats()
    said = sum(repeats.count(number, now=0.0) == 0 for number in range(2 * MAX_REMEMBERED))
    assert said == len(repeats._said) == MAX_REMEMBERED
    assert repeats.count("new", now=QUIET_S) == 0


def test_a_line_has_the_uid_and_the_count() -> None:
    repeats = Repeats()
    with capture_logs() as lines:
        for now in (0.0, 1.0, QUIET_S):
            repeats.warn("refused", uid=7, now=now, detail="why")
    line = {"event": "refused", "uid": 7, "detail": "why", "log_level": "warning"}
    assert lines == [line, line | {"and_before_it": 1}]
