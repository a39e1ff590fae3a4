"""The program in the guest that serves the host's requests. Uses the standard library only, and little of it.

The image builder copies this package into the guest as `vmpool_agent`; modules here import each other relatively, so
that the host can use `wire` and `values` too, as `vmm.guest.agent.wire` and `vmm.guest.agent.values`.

Each import costs boot time without KVM: no `enum`, `typing`, `collections`, `subprocess`, `signal` or `json`.
"""
