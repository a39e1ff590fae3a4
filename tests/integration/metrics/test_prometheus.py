"""A real Prometheus scrapes a service, and has what it should."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from pool.host.metrics_socket import TcpPlace, open_metrics_socket, place_of
from pool.observe.metrics import open_scrapes
from tests.prometheus import program
from tests.unit.observe.test_metrics import EXPORTED, SAMPLES
from tests.unit.rpc.served import Served, metrics_of, serving
from vmm.words.processes import ExitReport

PROMETHEUS = program("prometheus")

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus here (Debian package prometheus)")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert isinstance(port, int)
        return port


@contextlib.asynccontextmanager
async def scraping(served: Served) -> AsyncIterator[str]:
    """Its metrics at an address on loopback."""
    place = place_of(f"127.0.0.1:{free_port()}")
    assert isinstance(place, TcpPlace)
    with open_metrics_socket(place) as listener:
        server = await open_scrapes(metrics_of(served.coordinator), listener)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            yield str(place)
            nursery.cancel_scope.cancel(reason="the test is over")


@contextlib.asynccontextmanager
async def prometheus(directory: Path, *, target: str) -> AsyncIterator[str]:
    """The URL of its API."""
    port = free_port()
    config = directory / "prometheus.yml"
    job = {"job_name": "vmpool", "scrape_interval": "200ms", "static_configs": [{"targets": [target]}]}
    config.write_text(json.dumps({"scrape_configs": [job]}))  # which is YAML
    process = await trio.lowlevel.open_process(
        [
            str(PROMETHEUS),
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}/api/v1"
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            await process.wait()


async def ask(url: str, path: str, **parameters: str) -> Any:
    """None while there is no answer, or an empty one."""

    def get() -> Any:
        try:
            with urllib.request.urlopen(f"{url}/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as reply:
                return json.load(reply)["data"]
        except OSError:
            return None

    return await trio.to_thread.run_sync(get)


async def until_scraped(url: str, query: str, value: str) -> None:
    with trio.fail_after(60):
        while True:
            found = await ask(url, "query", query=query)
            if found and [each["value"][1] for each in found["result"]] == [value]:
                return
            await trio.sleep(0.1)


async def test_it_has_each_name_with_its_type_and_labels_and_no_more(vm_home: Path, tmp_path: Path) -> None:
    async with (
        serving(vm_home) as served,
        scraping(served) as target,
        prometheus(tmp_path, target=target) as url,
        served.client() as client,
    ):
        for _ in range(5):
            vm = await client.acquire()
            await client.release(vm.lease_id)
        vm = await client.acquire()
        served.machine(vm.lease_id).exit(ExitReport(signal=9))
        await served.until(served.lost)
        await until_scraped(url, 'vmpool_acquires_total{result="granted"}', "6")
        await until_scraped(url, 'vmpool_lost_total{state="leased"}', "1")

        metadata = await ask(url, "targets/metadata", match_target='{job="vmpool"}')
        types = {each["metric"]: each["type"] for each in metadata if each["metric"].startswith("vmpool_")}
        series = await ask(url, "series", **{"match[]": '{job="vmpool",__name__=~"vmpool_.*"}'})
    assert types == {name + ("_total" if kind == "counter" else ""): kind for name, (kind, _) in EXPORTED.items()}
    labels: dict[str, set[str]] = {}
    for each in series:
        labels.setdefault(each["__name__"], set()).update(each.keys() - {"__name__", "job", "instance"})
    assert labels == SAMPLES
