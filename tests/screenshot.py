"""Makes the picture of `vmpool top` for the guide: of a real service, with guests in QEMU. See scripts/screenshot."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import trio

from tests.running import running_service
from tests.unit.cli.live import Live, live
from vmpool.client import Client, open_client

CONFIG = """
[profiles.default]
size = 3
producer = "template"
template_directory = "{templates}"

[profiles.large]
size = 1
memory_mib = 512

[profiles.nightly]
size = 1
"""

HAND_OUTS = 12
FULL_LIMIT_S = 180.0


async def picture(socket_path: Path) -> str:
    """After some hand-outs, with leases, and with a profile that is drained."""
    pictures: list[str] = []

    async def scenario(view: Live) -> None:
        await view.until(lambda: bool(view.board.hand_outs))
        await view.until(lambda: len(view.board.leases) == 3 and _is_full(view))
        await view.until(lambda: view.app.shows(view.board.revision))
        pictures.append(view.app.export_screenshot(title="vmpool top"))

    async with open_client(socket_path) as client:
        await _full(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: live(socket_path, scenario, size=(118, 37), limit_s=FULL_LIMIT_S))
            await trio.sleep(2)  # the view sees what comes after it has begun to watch
            for _ in range(HAND_OUTS):
                await client.release((await client.acquire()).lease_id)
                await _full(client)
            await client.drain("nightly")
            for profile, ttl_s in (("default", 600.0), ("large", 3600.0), ("default", None)):
                await client.acquire(profile=profile, ttl_s=ttl_s)
    return pictures[0]


async def _full(client: Client) -> None:
    with trio.fail_after(FULL_LIMIT_S):
        while not all(profile.ready == profile.size for profile in (await client.status()).profiles):
            await trio.sleep(0.2)


def _is_full(view: Live) -> bool:
    return all(profile.ready == profile.size for profile in view.board.profiles if not profile.drained)


def main() -> None:
    target, image = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="vmpool-") as templates:
        config = CONFIG.format(templates=os.fspath(templates))
        with running_service(config, image_directory=image) as service:
            target.write_text(trio.run(picture, service.socket_path))


if __name__ == "__main__":
    main()
