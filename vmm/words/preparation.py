"""What a guest is asked at hand-out, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

RESEED_BYTES = 512
"""What Kata writes to its agent's ReseedRandomDev."""


@attrs.frozen(kw_only=True)
class Preparation:
    """One combined request that makes a VM unique and right before hand-out. None or zero leaves a thing alone."""

    entropy: bytes = attrs.field(default=b"", repr=False)
    """Bytes credited to the guest's RNG with RNDADDENTROPY, followed by RNDRESEEDCRNG; see RESEED_BYTES."""
    random_bytes: int = 0
    """So many bytes, up to 256, are drawn from the guest's RNG before anything else can and after the reseed, if any;
    the report has them."""
    wall_clock_ns: int | None = None
    """CLOCK_REALTIME to set, in ns since 1970."""
    hostname: str | None = None
    """1 to 64 ASCII letters, digits, '-', '.' and '_'."""
    machine_id: str | None = None
    """For /etc/machine-id, as systemd has it: 32 hexadecimal digits in lower case."""
    vm_uuid: str | None = None
    """What /sys/class/dmi/id/product_uuid shall show, in its usual form and in lower case. A clone's firmware has its
    template's, and its raw tables keep it."""
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Added to the default environment of commands that are started later in this VM, by whomever."""
    vcpus: int | None = None
    """At least so many must be online when the request is answered; see `Vm.grow`. What is plugged in is brought up,
    what the kernel has not noticed yet is waited for. Nothing more for 5 s is an AgentRequestError "ETIMEDOUT"."""
    memory_mib: int | None = None
    """As `vcpus`. It is the machine's memory that counts, in whole blocks of (mostly) 128 MiB: a machine that started
    with an odd size counts as if it had the rest of its last block."""


@attrs.frozen(kw_only=True)
class PreparationReport:
    """What the guest did, seen from inside, after the fact. Without an agent nobody looks: all is empty or zero."""

    reseeded: bool
    wall_clock_ns: int
    """The guest's clock right after the request."""
    hostname: str
    cpus_online: int
    memory_mib: int
    """MemTotal of the guest, which is less than what the machine has."""
    memory_online_mib: int | None = None
    """In whole blocks; what the kernel keeps for itself included. None if no memory was asked for."""
    random: bytes = attrs.field(default=b"", repr=False)
    """What was drawn from the RNG. Empty if nothing was asked for."""
    machine_id: str = ""
    """Empty if none was given."""
    vm_uuid: str = ""
    """Empty if none was given, or if the guest's kernel shows no UUID."""

    @property
    def was_seen(self) -> bool:
        """Whether anybody in the guest looked; a guest has at least one CPU."""
        return self.cpus_online > 0


@attrs.frozen(kw_only=True)
class GuestInfo:
    """What the agent says of its guest on readiness. Without an agent it is zero and empty."""

    agent_version: int
    kernel_release: str


@attrs.frozen(kw_only=True)
class Growth:
    """What is added to a machine, or is to be."""

    vcpus: int
    memory_mib: int
    """In whole blocks of 128 MiB."""
