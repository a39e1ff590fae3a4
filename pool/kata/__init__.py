"""Kata Containers' VM factory and VMCache: its records, its JSON, its configuration file, its gRPC service.

Supports two generations of Kata: runtime 1.x, which ended in 2021, and the runtime of kata-containers since then.
Nothing else in `pool` depends on this package, except the command.
"""
