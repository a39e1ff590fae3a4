"""One virtual machine: QEMU, the guest inside it, and a simulation of both.

Nothing here knows of pools. `contract` is the interface of a VM to the layers above; `qemu` and `simulated` implement
it, and one contract test suite runs over both; `guest` is the agent in the guest and the host's side of it.
"""
