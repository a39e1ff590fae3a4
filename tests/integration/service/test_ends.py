"""The end of a leased VM, and of what runs in it, as people see it."""

from __future__ import annotations

import json
import os
import signal

import pytest
import trio

from tests.running import RunningService
from vmpool.client import CallError, CommandExit, open_client

HOG = "x = [bytes([1]) * 2**20 for _ in range(1000)]"


def test_a_job_that_powers_off_is_told_so_and_is_not_the_pools_failure(service: RunningService) -> None:
    done = service.command("run", "--", "sh", "-c", "poweroff; sleep 60")
    assert done.returncode == 125
    assert b"its guest powered off (exit status 0)" in done.stderr
    (profile,) = json.loads(service.command("status", "--json").stdout)["profiles"]
    assert (profile["last_error"], profile["last_evidence"]) == ("", "")


def test_a_job_whose_kernel_panics_is_told_what_the_kernel_said(service: RunningService) -> None:
    done = service.command("run", "--", "sh", "-c", "echo c > /proc/sysrq-trigger")
    assert b"its guest's kernel panicked: sysrq triggered crash" in done.stderr
    assert "Call Trace" in service.log.read_text(), "the log has the end of the console"


async def test_who_holds_or_renews_a_lease_is_told_too(service: RunningService) -> None:
    async with open_client(service.socket_path) as client:
        vm = await client.acquire()
        async with client.exec(vm.lease_id, ["sh", "-c", "reboot; sleep 60"]) as command:
            with pytest.raises(CallError, match="its guest was reset"):
                await command.wait()
        with pytest.raises(CallError, match="its guest was reset"):
            await client.renew(vm.lease_id, ttl_s=60)


def test_a_job_that_was_short_of_memory_is_told_so(service: RunningService) -> None:
    done = service.command("run", "--", "python3", "-c", HOG)
    assert done.returncode == 128 + signal.SIGKILL
    assert b"ran out of memory" in done.stderr
    done = service.command("run", "--", "sh", "-c", "kill -9 $$")
    assert (done.returncode, done.stderr) == (128 + signal.SIGKILL, b"")


def test_a_job_that_fills_its_files_ends_for_that_and_its_vm_lives(service: RunningService) -> None:
    fill = "for at in /tmp /dev/shm /root; do dd if=/dev/zero of=$at/full bs=1M; done"
    still_there = "python3 -c 'print(len(bytearray(4 << 20)))'"
    done = service.command("run", "--", "sh", "-c", f"{fill}; {still_there}")
    assert done.stderr.count(b"No space left on device") == 3
    assert (done.stdout, done.returncode) == (b"4194304\n", 0)


def test_a_time_limit_ends_all_of_a_job(service: RunningService) -> None:
    done = service.command("run", "--time-limit", "2", "--", "sh", "-c", "setsid sleep 4321 & sleep 4321")
    assert done.returncode == 124


async def test_a_time_limit_is_kept_though_qemu_is_stopped(service: RunningService) -> None:
    async with open_client(service.socket_path) as client:
        vm = await client.acquire()
        os.kill(vm.pid, signal.SIGSTOP)
        try:
            with trio.fail_after(60):
                with pytest.raises(CallError, match=r"time limit of 0\.5 s is over, and its guest has been silent"):
                    async with client.exec(vm.lease_id, ["true"], time_limit_s=0.5) as command:
                        await command.wait()
        finally:
            os.kill(vm.pid, signal.SIGCONT)
        async with client.exec(vm.lease_id, ["true"], time_limit_s=60) as command:
            assert await command.wait() == CommandExit(status=0)
        await client.release(vm.lease_id)
