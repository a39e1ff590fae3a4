"""One virtual machine: QEMU, the guest inside it, and a simulation of both.

Nothing here knows of pools. `contract` says what a VM is to the layers above; `qemu` and `simulated` fulfil it and
one contract test suite runs over both; `guest` is the image, the agent in it, and the host's side of the agent.
"""
