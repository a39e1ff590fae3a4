"""A caller's wishes for a VM, checked and converted from the wire."""

from __future__ import annotations

import re
from typing import Final

import attrs

from pool.rpc.arguments import check_environment, check_path
from pool.rpc.errors import InvalidRequestError
from vmm.guest.noop import nobody_there
from vmm.words.machines import MAX_MEMORY_MIB, MAX_VCPUS
from vmm.words.wishes import GuestFile, Wishes
from vmpool.wire.generated.vmpool import v1 as wire

MAX_HOSTNAME: Final = 64
"""Linux: __NEW_UTS_LEN."""
MAX_FILES: Final = 256
MAX_MODE: Final = 0o777
DEFAULT_MODE: Final = 0o644

_HOSTNAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def wishes_of(request: wire.AcquireRequest) -> Wishes:
    """Raises InvalidRequestError. The ledger checks the profile's own maximum."""
    for field, value, maximum in (
        ("vcpus", request.vcpus, MAX_VCPUS),
        ("memory_mib", request.memory_mib, MAX_MEMORY_MIB),
    ):
        if value > maximum:
            raise InvalidRequestError(field=field, reason=f"{value} is out of range; the maximum is {maximum}")
    if request.hostname and (len(request.hostname) > MAX_HOSTNAME or not _HOSTNAME.fullmatch(request.hostname)):
        raise InvalidRequestError(
            field="hostname",
            reason=f"{request.hostname[:MAX_HOSTNAME]!r} is not a hostname; use at most {MAX_HOSTNAME} letters, "
            "digits, '-' and '.'",
        )
    check_environment("environment", request.environment)
    if len(request.files) > MAX_FILES:
        raise InvalidRequestError(
            field="files", reason=f"has {len(request.files)} entries; the maximum is {MAX_FILES}; send an archive"
        )
    return Wishes(
        vcpus=request.vcpus or None,
        memory_mib=request.memory_mib or None,
        hostname=request.hostname,
        environment=dict(request.environment),
        files=tuple(_file(number, file) for number, file in enumerate(request.files)),
    )


def for_silent_guest(wishes: Wishes, *, vcpus: int, memory_mib: int) -> Wishes:
    """The wishes for a guest without an agent, which can have no more than it starts with: `vcpus` and `memory_mib`.

    Checked before the hand-out, where a refusal would cost a VM. Raises AgentRequestError.
    """
    for field, wished in (
        ("vcpus", (wishes.vcpus or 0) > vcpus),
        ("memory_mib", (wishes.memory_mib or 0) > memory_mib),
        ("environment", bool(wishes.environment)),
        ("files", bool(wishes.files)),
    ):
        if wished:
            raise nobody_there(field)
    return attrs.evolve(wishes, vcpus=None, memory_mib=None)


def _file(number: int, file: wire.GuestFile) -> GuestFile:
    field = f"files[{number}]"
    if not file.path.startswith("/") or file.path.endswith("/") or "\0" in file.path:
        raise InvalidRequestError(
            field=f"{field}.path", reason=f"{file.path[:256]!r} is not an absolute path of a file"
        )
    check_path(f"{field}.path", file.path)
    if file.mode > MAX_MODE:
        raise InvalidRequestError(
            field=f"{field}.mode", reason=f"{file.mode:o} is out of range; the maximum is {MAX_MODE:o}"
        )
    return GuestFile(path=file.path, data=file.data, mode=file.mode or DEFAULT_MODE)
