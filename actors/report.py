"""Checks that a guest's report of its hand-out is possible and fulfils the request. Guests are not trusted."""

from __future__ import annotations

from typing import Final

from vmm.errors import AgentProtocolError
from vmm.untrusted import is_number, said
from vmm.words.preparation import Preparation, PreparationReport

MAX_CPUS: Final = 2**16
MAX_MEMORY_MIB: Final = 2**26
"""64 TiB."""

_MAX_CLOCK_NS: Final = 2**63 - 1

_MAX_NAME: Final = 64
"""Linux's longest hostname; ids and UUIDs are shorter."""


def check_report(report: PreparationReport, wanted: Preparation) -> None:
    """Raises AgentProtocolError; the guest is then compromised or broken."""
    for field, most in (
        ("cpus_online", MAX_CPUS),
        ("memory_mib", MAX_MEMORY_MIB),
        ("memory_online_mib", MAX_MEMORY_MIB),
        ("wall_clock_ns", _MAX_CLOCK_NS),
    ):
        number = getattr(report, field)
        if not (is_number(number, most=most) or (number is None and field == "memory_online_mib")):
            raise AgentProtocolError(f"the guest reports an impossible {field}: {number!r:.40}")
    for field in ("hostname", "machine_id", "vm_uuid"):
        text = getattr(report, field)
        if said(text, most=_MAX_NAME) != text:
            raise AgentProtocolError(f"the guest reports an invalid {field}: {said(text, most=_MAX_NAME)!r}")
    for field, asked, found in (
        ("CPUs", wanted.vcpus, report.cpus_online),
        ("MiB of memory", wanted.memory_mib, report.memory_online_mib),
    ):
        if asked is not None and (found is None or found < asked):
            raise AgentProtocolError(f"the guest was asked for {asked} {field} and reports success with {found}")
