"""What the tests of a service with templates share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pool.client import Client, ProfileStatus
from tests.running import RunningService


@contextmanager
def place_for_template() -> Iterator[Path]:
    """In memory, as the service would choose it; not made yet. Nothing of it is left at the end."""
    with tempfile.TemporaryDirectory(prefix="vmpool-", dir="/dev/shm") as name:
        yield Path(name) / "template"


def config(place: Path, *, size: int = 1, **more: object) -> str:
    settings = {"size": size, "accelerator": "tcg", "producer": "template", "template_directory": str(place)}
    lines = [f"{key} = {_toml(value)}" for key, value in (settings | {"backoff_initial_s": 0.1} | more).items()]
    return "\n".join(["[profiles.default]", *lines])


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str | Path) else str(value).lower()


async def profile_of(client: Client) -> ProfileStatus:
    (profile,) = (await client.status()).profiles
    return profile


async def is_full(client: Client) -> bool:
    """The pool is full of what is current, and nothing is on its way."""
    profile = await profile_of(client)
    busy = profile.producing or profile.stopping or profile.leased or profile.handing_out
    return profile.producer.ready and profile.ready == profile.size and not profile.stale and not busy


async def output(client: Client, lease_id: str, script: str) -> str:
    async with client.exec(lease_id, ["sh", "-c", script]) as command:
        done = await command.collect()
    assert done.exit.status == 0, done
    return done.stdout.decode()


def times_in_log(service: RunningService, text: str) -> int:
    return service.log.read_text().count(text)
