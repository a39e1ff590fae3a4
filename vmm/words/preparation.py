"""The request to a guest at hand-out, and its report."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

RESEED_BYTES = 512
"""As many as Kata sends with its agent's ReseedRandomDev."""


@attrs.frozen(kw_only=True)
class Preparation:
    """One combined request that makes a VM unique and correct before hand-out. None or zero changes nothing."""

    entropy: bytes = attrs.field(default=b"", repr=False)
    """Bytes credited to the guest's RNG with RNDADDENTROPY, followed by RNDRESEEDCRNG; see RESEED_BYTES."""
    random_bytes: int = 0
    """How many bytes, up to 256, are drawn from the guest's RNG right after the reseed, if any; the report has them."""
    wall_clock_ns: int | None = None
    """CLOCK_REALTIME to set, in ns since 1970."""
    hostname: str | None = None
    """1 to 64 ASCII letters, digits, '-', '.' and '_'."""
    machine_id: str | None = None
    """For /etc/machine-id, as systemd has it: 32 hexadecimal digits in lower case."""
    vm_uuid: str | None = None
    """For /sys/class/dmi/id/product_uuid, in its usual form and in lower case. A clone's firmware has its template's,
    and its raw tables keep that."""
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Added to the default environment of all commands that are started later in this VM."""
    vcpus: int | None = None
    """How many CPUs at least must be online when the request is answered; see `Vm.grow`. The guest onlines CPUs that
    are plugged in, and waits for those that its kernel has not noticed yet; 5 s without progress is an
    AgentRequestError "ETIMEDOUT"."""
    memory_mib: int | None = None
    """As `vcpus`. The machine's memory counts, in whole blocks of (usually) 128 MiB: a machine that started with an odd
    size counts as if it had the rest of its last block."""


@attrs.frozen(kw_only=True)
class PreparationReport:
    """The result as the guest sees it. Without an agent all is empty or zero."""

    reseeded: bool
    wall_clock_ns: int
    """The guest's clock right after the request."""
    hostname: str
    cpus_online: int
    memory_mib: int
    """MemTotal of the guest, which is less than the machine's memory."""
    memory_online_mib: int | None = None
    """In whole blocks, including the kernel's own memory. None if no memory was asked for."""
    random: bytes = attrs.field(default=b"", repr=False)
    """The bytes drawn from the RNG. Empty if none were asked for."""
    machine_id: str = ""
    """Empty if none was given."""
    vm_uuid: str = ""
    """Empty if none was given, or if the guest's kernel shows no UUID."""

    @property
    def was_seen(self) -> bool:
        """Whether an agent made the report; a guest has at least one CPU."""
        return self.cpus_online > 0


@attrs.frozen(kw_only=True)
class GuestClock:
    """A guest's clock at the moment of its answer."""

    wall_clock_ns: int
    """CLOCK_REALTIME, ns since 1970."""
    moved_ns: int
    """By how much the clock was moved from within the guest since the host last set it, or the guest booted. A guest
    that stood still has moved nothing: its clock is late, and this is 0."""


@attrs.frozen(kw_only=True)
class GuestInfo:
    """The agent's report of its guest on readiness. Without an agent it is zero and empty."""

    agent_version: int
    kernel_release: str
    clock: GuestClock | None = None
    """None if the agent does not tell."""


@attrs.frozen(kw_only=True)
class Growth:
    """CPUs and memory that are added to a machine, or are to be."""

    vcpus: int
    memory_mib: int
    """In whole blocks of 128 MiB."""
