"""The benchmarks from end to end: two cases without VMs and one with QEMU, one round each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results import Results, read
from vmm.initramfs.image import GuestImage

pytestmark = pytest.mark.qemu

CASES = ("codec/qmp-exchange", "ledger/hand-out@10", "start/qemu")


def bench(image: GuestImage, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        capture_output=True,
        check=False,
        timeout=240,
        env=os.environ | {"VMPOOL_IMAGE_DIR": str(image.kernel.parent)},
    )


@pytest.fixture(scope="module")
def run(guest_image: GuestImage, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Results, Path]:
    output = tmp_path_factory.mktemp("bench")
    chosen = [argument for name in CASES for argument in ("--only", name)]
    done = bench(guest_image, *chosen, "--rounds", "1", "--output", str(output))
    assert done.returncode == 0, done
    return done.stdout, read(output / "results.json"), output / "results.json"


def test_what_was_chosen_is_measured_shown_and_written_down(run: tuple[bytes, Results, Path]) -> None:
    shown, results, _ = run
    for name in CASES:
        series = results.find(name)
        assert series is not None, name
        assert all(value > 0 for each in series.rounds for value in each)
        assert name.encode() in shown
    names = {series.name.partition(":")[0] for series in results.series if not series.name.endswith("yardstick")}
    assert names == set(CASES)
    assert results.leftovers() == []
    assert results.host.accelerator in ("tcg", "kvm")


def test_a_run_is_compared_with_an_older_one(run: tuple[bytes, Results, Path], guest_image: GuestImage) -> None:
    _, _, path = run
    arguments = ("--only", CASES[0], "--rounds", "1", "--output", str(path.parent / "new"), "--compare", str(path))
    done = bench(guest_image, *arguments)
    assert done.returncode == 0, done
    assert b"compared 1 series: 1 too few rounds to tell" in done.stdout


def test_a_pattern_for_nothing_is_a_usage_error(guest_image: GuestImage) -> None:
    done = bench(guest_image, "--only", "nonsense")
    assert done.returncode == 2
    assert b"'nonsense'" in done.stderr
