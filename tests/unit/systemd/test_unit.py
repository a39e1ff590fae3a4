"""The unit for a command: what it starts, and what of the host that must leave visible."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from pool.systemd.unit import UnitError, packaged_unit, unit_for


def changed(unit: str) -> list[str]:
    lines = difflib.ndiff(packaged_unit().splitlines(), unit.splitlines())
    return [line[2:] for line in lines if line.startswith("+ ")]


def test_it_is_packaged_for_usr_bin() -> None:
    assert unit_for(Path("/usr/bin/vmpool")) == packaged_unit()


def test_it_starts_the_command() -> None:
    assert changed(unit_for(Path("/opt/vmpool/bin/vmpool"))) == [
        "ExecStart=/opt/vmpool/bin/vmpool serve --config /etc/vmpool/vmpool.toml"
    ]


@pytest.mark.parametrize("place", ["/home/me/vmpool/.venv/lib", "/root/python/bin/python3", "/run/user/1000/x"])
def test_a_home_that_it_is_made_of_can_be_read(place: str) -> None:
    assert "ProtectHome=read-only" in changed(unit_for(Path("/usr/local/bin/vmpool"), places=[Path(place)]))


def test_a_home_that_it_lies_in_can_be_read() -> None:
    assert "ProtectHome=read-only" in changed(unit_for(Path("/root/vmpool/.venv/bin/vmpool")))


@pytest.mark.parametrize("place", ["/tmp/venv/bin/vmpool", "/var/tmp/x"])
def test_what_is_in_tmp_is_refused(place: str) -> None:
    with pytest.raises(UnitError, match=f"^{place} is not visible in the unit"):
        unit_for(Path("/usr/bin/vmpool"), places=[Path(place)])


@pytest.mark.parametrize("command", ["vmpool", "bin/vmpool", "/opt/my tools/vmpool", "/opt/100%/vmpool", "/a\nb", "/"])
def test_what_systemd_would_read_otherwise_is_refused(command: str) -> None:
    with pytest.raises(UnitError, match=r"cannot be named in a unit: use an absolute path"):
        unit_for(Path(command))
