"""All experiments."""

from __future__ import annotations

from bench.micro import actors, cli, codecs, kata, ledger, rpc
from bench.registry import Registry
from bench.system import (
    confinement,
    files,
    handout,
    idle,
    layers,
    memory,
    miss,
    neighbours,
    others,
    restart,
    start,
    throughput,
)

ALL = Registry(
    (
        ledger.EXPERIMENT,
        codecs.EXPERIMENT,
        actors.EXPERIMENT,
        kata.EXPERIMENT,
        rpc.EXPERIMENT,
        cli.EXPERIMENT,
        start.EXPERIMENT,
        handout.HAND_OUT,
        miss.EXPERIMENT,
        throughput.EXPERIMENT,
        handout.EXEC,
        files.EXPERIMENT,
        idle.EXPERIMENT,
        memory.EXPERIMENT,
        restart.EXPERIMENT,
        others.EXPERIMENT,
        confinement.EXPERIMENT,
        layers.EXPERIMENT,
        neighbours.EXPERIMENT,
    )
)
