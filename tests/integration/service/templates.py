"""What the tests of a service with templates share."""

from __future__ import annotations

from pathlib import Path

from tests.running import RunningService
from vmpool.client import Client, ProfileStatus

MACHINE = {"accelerator": "tcg", "memory_mib": 256, "max_vcpus": 4, "max_memory_mib": 1024}
"""What there is a template of: `kept_template` in conftest.py."""


def config(place: Path, *, profile: str = "default", **more: object) -> str:
    settings = {"size": 1, "producer": "template", "template_directory": str(place), "backoff_initial_s": 0.1}
    lines = [f"{key} = {_toml(value)}" for key, value in (MACHINE | settings | more).items()]
    return "\n".join([f"[profiles.{profile}]", *lines])


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
