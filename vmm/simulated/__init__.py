"""VMs without QEMU: the same contract, the same contract tests, faults on demand."""

from vmm.simulated.faults import (
    AgentGoesMute,
    BootFails,
    BootHangs,
    CommandsFail,
    Exits,
    Fault,
    FaultPlan,
    FilesFail,
    Hangs,
    Moment,
    PrepareFails,
    PrepareIsSlow,
    StopIsSlow,
    no_faults,
    random_faults,
    scripted,
)
from vmm.simulated.host import SimulatedHost, SimulatedSurvivor, SimulatedVm

__all__ = [
    "AgentGoesMute",
    "BootFails",
    "BootHangs",
    "CommandsFail",
    "Exits",
    "Fault",
    "FaultPlan",
    "FilesFail",
    "Hangs",
    "Moment",
    "PrepareFails",
    "PrepareIsSlow",
    "SimulatedHost",
    "SimulatedSurvivor",
    "SimulatedVm",
    "StopIsSlow",
    "no_faults",
    "random_faults",
    "scripted",
]
