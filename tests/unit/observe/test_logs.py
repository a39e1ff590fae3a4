"""What each line of the log has."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[3]

SCRIPT = """
import logging, structlog
from pool.observe.logs import configure_logs
configure_logs(json={json})
structlog.get_logger("vmpool").info("serving")
structlog.get_logger("vmpool.vm").warning("VM lost", vm="vm-1")
structlog.get_logger("vmpool.factory", subsystem="another").info("get base VM")
logging.getLogger("vmpool.client").warning("gone")
logging.getLogger("grpclib.server").warning("gone")
"""


HOSTILE = "\x1b]0;title\x07\x9b2J\rover\u202e\n[info] all is well"

HOSTILE_SCRIPT = """
import logging, structlog
from pool.observe.logs import configure_logs
configure_logs(json={json})
hostile = {hostile!a}
structlog.get_logger("vmpool.vm").warning("VM lost", evidence=hostile, seen=[hostile], word="\\x9b2J")
logging.getLogger("vmpool.client").warning("gone: %s", hostile)
try:
    raise ValueError(hostile)
except ValueError:
    structlog.get_logger("vmpool").exception("failed")
    logging.getLogger("grpclib.server").exception("failed")
"""


SECRETIVE_SCRIPT = """
import logging, structlog
from pool.observe.logs import configure_logs
configure_logs(json={json})
secret = "-".join(("do", "not", "show"))  # Python 3.13 shows the lines of -c in tracebacks
def start(environment):
    contents = secret.encode()
    raise ValueError("cannot start")
for logger in (structlog.get_logger("vmpool"), logging.getLogger("grpclib.server")):
    try:
        start(dict(TOKEN=secret))
    except ValueError:
        logger.exception("failed")
"""

UNREAD_SCRIPT = """
import structlog
from pool.observe.logs import configure_logs
configure_logs(json={json})
for number in range(5000):
    structlog.get_logger("vmpool").info("one of many lines", number=number)
print("done", flush=True)
"""


def logged(*, as_json: bool, script: str = SCRIPT) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script.format(json=as_json, hostile=HOSTILE)], check=True, capture_output=True
    )
    return done.stderr.decode().removesuffix("\n").split("\n")


def test_a_line_says_which_part_of_the_service_it_is_from() -> None:
    lines = [json.loads(line) for line in logged(as_json=True)]
    assert [line["subsystem"] for line in lines] == ["service", "vm", "another", "client", "grpclib.server"]
    assert lines[1]["vm"] == "vm-1"
    assert not any("_record" in line for line in lines)


def test_on_a_terminal_too() -> None:
    assert all("subsystem" in line for line in logged(as_json=False))


def test_what_a_guest_says_gives_a_terminal_no_orders() -> None:
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in logged(as_json=False, script=HOSTILE_SCRIPT)]
    assert all(line.replace("\t", "").isprintable() for line in lines), lines
    assert all(r"\x9b2J" in lines[at] for at in (0, 1))
    assert sum(line.startswith(r"ValueError: \x1b]0;title\x07\x9b2J\rover\u202e") for line in lines) == 2


def test_nor_can_it_pass_for_a_line_of_the_log() -> None:
    messages = logged(as_json=False, script=HOSTILE_SCRIPT)[:2]
    assert all("all is well" in line and not line.startswith("[info]") for line in messages), messages


def test_json_has_it_as_it_is() -> None:
    assert json.loads(logged(as_json=True, script=HOSTILE_SCRIPT)[0])["evidence"] == HOSTILE


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_values(as_json: bool) -> None:
    """They are what callers sent: environments, contents of files."""
    text = "\n".join(logged(as_json=as_json, script=SECRETIVE_SCRIPT))
    assert text.count("cannot start") >= 2
    assert "start" in text
    assert "do-not-show" not in text


@pytest.mark.parametrize("as_json", [True, False])
def test_whoever_logs_does_not_wait_for_a_reader(as_json: bool) -> None:
    reader, writer = os.pipe()
    try:
        argv = [sys.executable, "-c", UNREAD_SCRIPT.format(json=as_json)]
        done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=writer, timeout=60)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.stdout == b"done\n"


VERBOSE_SCRIPT = """
import logging, structlog
from pool.observe.logs import configure_logs
configure_logs(json={json}, verbose=True)
structlog.get_logger("vmpool").debug("of ours")
logging.getLogger("vmpool.client").debug("of ours")
for name in ("h2.connection", "hpack.hpack", "grpclib.server", "asyncio", "trio"):
    logging.getLogger(name).debug("of theirs")
    logging.getLogger(name).info("of theirs")
logging.getLogger("grpclib.server").warning("a warning of theirs")
"""


def test_verbose_is_about_our_own_doings() -> None:
    lines = [json.loads(line) for line in logged(as_json=True, script=VERBOSE_SCRIPT)]
    assert [line["event"] for line in lines] == ["of ours", "of ours", "a warning of theirs"]


def test_every_logger_has_a_name_and_a_vm_is_always_called_the_same() -> None:
    """A logger without one would be the service's; `vm` is Kata's name of the field."""
    for path in (path for part in ("pool", "actors", "vmm") for path in (HOUSE / part).rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)):
            said = ast.unparse(call.func)
            if said == "structlog.get_logger":
                assert call.args, path
            if said.startswith(("_log.", "log.")):
                assert "vm_id" not in {keyword.arg for keyword in call.keywords}, f"{path}:{call.lineno}"
