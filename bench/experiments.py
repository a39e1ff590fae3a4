"""The experiments that there are."""

from __future__ import annotations

from bench.micro import actors, codecs, kata, ledger, rpc
from bench.registry import Registry

ALL = Registry(
    (
        ledger.EXPERIMENT,
        codecs.EXPERIMENT,
        actors.EXPERIMENT,
        kata.EXPERIMENT,
        rpc.EXPERIMENT,
    )
)
