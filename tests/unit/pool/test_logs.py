"""What each line of the log has."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).parents[3]

SCRIPT = """
import logging, structlog
from pool.logs import configure_logs
configure_logs(json={json})
structlog.get_logger("vmpool").info("serving")
structlog.get_logger("vmpool.vm").warning("VM lost", vm="vm-1")
structlog.get_logger("vmpool.factory", subsystem="another").info("get base VM")
logging.getLogger("vmpool.client").warning("gone")
logging.getLogger("grpclib.server").warning("gone")
"""


def logged(*, as_json: bool) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(json=as_json)], check=True, capture_output=True, text=True
    )
    return done.stderr.splitlines()


def test_a_line_says_which_part_of_the_service_it_is_from() -> None:
    lines = [json.loads(line) for line in logged(as_json=True)]
    assert [line["subsystem"] for line in lines] == ["service", "vm", "another", "client", "grpclib.server"]
    assert lines[1]["vm"] == "vm-1"
    assert not any("_record" in line for line in lines)


def test_on_a_terminal_too() -> None:
    assert all("subsystem" in line for line in logged(as_json=False))


def test_every_logger_has_a_name_and_a_vm_is_always_called_the_same() -> None:
    """A logger without one would be the service's; `vm` is Kata's name of the field."""
    for path in (path for part in ("pool", "actors", "vmm") for path in (HOUSE / part).rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)):
            said = ast.unparse(call.func)
            if said == "structlog.get_logger":
                assert call.args, path
            if said.startswith(("_log.", "log.")):
                assert "vm_id" not in {keyword.arg for keyword in call.keywords}, f"{path}:{call.lineno}"
