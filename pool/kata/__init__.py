"""Kata Containers' VM factory and VMCache: its records, its JSON, its configuration file, its gRPC service.

Two generations of Kata are understood: runtime 1.x, the last to end in 2021, and the runtime of kata-containers since.
Nothing else in `pool` depends on this, except the command.
"""
