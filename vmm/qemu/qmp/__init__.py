"""QMP, QEMU's control protocol: records and framing without I/O (`messages`, `protocol`), and a trio client."""

from vmm.qemu.qmp.client import EventSubscription, QmpClient
from vmm.qemu.qmp.messages import Event, Greeting

__all__ = ["Event", "EventSubscription", "Greeting", "QmpClient"]
