"""The program in the guest that answers the host. Standard library only, and as little of it as will do.

The image builder copies this package into the guest as `vmpool_agent`; modules here import each other relatively, so
that the host can use `wire` and `values` too, as `vmm.guest.agent.wire` and `vmm.guest.agent.values`.

Each import costs boot time when no KVM is there: no `enum`, `typing`, `collections`, `subprocess`, `signal` or `json`.
"""
