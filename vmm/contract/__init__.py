"""The interface of a VM. Implemented by `vmm.qemu` and `vmm.simulated`; tests/contract runs over both."""

from vmm.contract.agent import Agent
from vmm.contract.files import FileReader, FileWriter, GuestFiles, TreeWriter
from vmm.contract.ports import GuestPorts, PortListener
from vmm.contract.processes import AttachedProcess, Command, GuestProcesses
from vmm.contract.streams import ByteSource, ByteStream, RecordSource
from vmm.contract.vm import Shell, Survivor, Vm, VmTemplate

__all__ = [
    "Agent",
    "AttachedProcess",
    "ByteSource",
    "ByteStream",
    "Command",
    "FileReader",
    "FileWriter",
    "GuestFiles",
    "GuestPorts",
    "GuestProcesses",
    "PortListener",
    "RecordSource",
    "Shell",
    "Survivor",
    "TreeWriter",
    "Vm",
    "VmTemplate",
]
