"""Runs in quick-sandbox's own environment, which has none of ours: times its sandbox, one JSON object a line.

Each line on stdin asks for a round: start, checkpoint, execute, revert, stop.
"""

import asyncio  # noqa: TID251 - quick-sandbox needs it
import json
import sys
import time

from quicksand import Sandbox

MEMORY = "256M"


async def one_round():
    times = {}

    async def timed(name, step):
        began = time.perf_counter()
        result = await step
        times[name] = time.perf_counter() - began
        return result

    sandbox = Sandbox(image="alpine", memory=MEMORY, accel="tcg")
    await timed("start", sandbox.start())
    try:
        await timed("checkpoint", sandbox.checkpoint("bench"))
        await timed("execute", sandbox.execute("true"))
        await timed("revert", sandbox.revert("bench"))
    finally:
        await sandbox.stop()
    return times


for _line in sys.stdin:
    print(json.dumps(asyncio.run(one_round())), flush=True)
