"""Which accelerator is chosen, and what is said about it; every branch, on an invented host."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from vmm.errors import AcceleratorError
from vmm.qemu.accelerator import (
    TIMEOUT_REMEMBERED_S,
    AcceleratorDecision,
    HostFacts,
    TrialFailure,
    TrialIdentity,
    decide,
    linux_host,
)
from vmm.qemu.version import QemuVersion
from vmm.words.machines import Accelerator, AcceleratorSetting


def refusing(error: OSError) -> Callable[[], None]:
    def open_kvm() -> None:
        raise error

    return open_kvm


GOOD_HOST = HostFacts(
    open_kvm=lambda: None,
    cpu_flags=lambda: frozenset({"fpu", "vmx"}),
    boot_id=lambda: "boot-1",
    uptime_s=lambda: 1000.0,
)
NO_DEVICE = attrs.evolve(GOOD_HOST, open_kvm=refusing(FileNotFoundError(2, "No such file or directory")))
NOT_ALLOWED = attrs.evolve(GOOD_HOST, open_kvm=refusing(PermissionError(13, "Permission denied")))
SOFTWARE_KVM = attrs.evolve(GOOD_HOST, cpu_flags=lambda: frozenset({"fpu"}))

OBSTACLES = [
    (NO_DEVICE, "/dev/kvm does not exist"),
    (NOT_ALLOWED, r"/dev/kvm cannot be opened \(Permission denied\)"),
    (SOFTWARE_KVM, "/dev/kvm exists, but the CPU has neither vmx nor svm: this is software KVM"),
]


class Trial:
    """A trial boot with a set result, counted."""

    def __init__(self, result: TrialFailure | None) -> None:
        self.result = result
        self.boots = 0

    async def __call__(self) -> TrialFailure | None:
        self.boots += 1
        return self.result


REFUSED = TrialFailure(reason="QEMU says no", timed_out=False)
TIMED_OUT = TrialFailure(reason="the guest agent did not answer within 20 s", timed_out=True)


class Chooser:
    def __init__(self, directory: Path) -> None:
        self.cache = directory / "cache"
        kernel = directory / "vmlinuz"
        kernel.write_bytes(b"kernel")
        qemu = directory / "qemu"
        qemu.write_bytes(b"program")
        self.identity = TrialIdentity(qemu=qemu, qemu_version=QemuVersion(7, 2, 22), kernel=kernel, uid=65534)

    async def __call__(self, setting: AcceleratorSetting, host: HostFacts, trial: Trial) -> AcceleratorDecision:
        return await decide(setting, identity=self.identity, trial_boot=trial, cache_directory=self.cache, host=host)


@pytest.fixture
def choose(tmp_path: Path) -> Chooser:
    return Chooser(tmp_path)


async def test_tcg_is_taken_at_its_word(choose: Chooser) -> None:
    decision = await choose(AcceleratorSetting.TCG, GOOD_HOST, Trial(None))
    assert decision == AcceleratorDecision(accelerator=Accelerator.TCG, reason="the configuration says tcg.")


@pytest.mark.parametrize(("host", "reason"), OBSTACLES)
async def test_kvm_that_cannot_work_is_an_error(choose: Chooser, host: HostFacts, reason: str) -> None:
    with pytest.raises(AcceleratorError, match=reason) as caught:
        await choose(AcceleratorSetting.KVM, host, Trial(None))
    assert "`auto` or `tcg`" in str(caught.value)


async def test_kvm_is_taken_at_its_word_without_a_trial(choose: Chooser) -> None:
    trial = Trial(REFUSED)
    decision = await choose(AcceleratorSetting.KVM, GOOD_HOST, trial)
    assert (decision.accelerator, trial.boots) == (Accelerator.KVM, 0)


@pytest.mark.parametrize(("host", "reason"), OBSTACLES)
async def test_auto_falls_back_without_a_trial_and_says_why(choose: Chooser, host: HostFacts, reason: str) -> None:
    trial = Trial(None)
    decision = await choose(AcceleratorSetting.AUTO, host, trial)
    assert (decision.accelerator, trial.boots) == (Accelerator.TCG, 0)
    with pytest.raises(ValueError, match=reason):
        raise ValueError(decision.reason)


async def test_auto_believes_a_guest_that_booted_and_remembers(choose: Chooser) -> None:
    trial = Trial(None)
    first = await choose(AcceleratorSetting.AUTO, GOOD_HOST, trial)
    second = await choose(AcceleratorSetting.AUTO, GOOD_HOST, trial)
    assert first == AcceleratorDecision(accelerator=Accelerator.KVM, reason="a guest booted under KVM.")
    assert (second.accelerator, trial.boots) == (Accelerator.KVM, 1)
    assert "remembered" in second.reason


async def test_auto_remembers_failure_too(choose: Chooser) -> None:
    trial = Trial(REFUSED)
    for host in (GOOD_HOST, attrs.evolve(GOOD_HOST, uptime_s=lambda: 1e9)):
        decision = await choose(AcceleratorSetting.AUTO, host, trial)
        assert decision.accelerator is Accelerator.TCG
        assert "QEMU says no" in decision.reason
    assert trial.boots == 1


async def test_a_trial_that_ran_out_of_time_is_remembered_for_a_while(choose: Chooser) -> None:
    """The host may just have been busy; one whose KVM hangs must not wait for a trial at each start of a producer."""
    trial = Trial(TIMED_OUT)
    boots = []
    for uptime_s in (1000.0, 999.0 + TIMEOUT_REMEMBERED_S, 1000.0 + TIMEOUT_REMEMBERED_S):
        host = attrs.evolve(GOOD_HOST, uptime_s=partial(float, uptime_s))
        decision = await choose(AcceleratorSetting.AUTO, host, trial)
        assert decision.accelerator is Accelerator.TCG
        assert "the guest agent did not answer within 20 s" in decision.reason
        boots.append(trial.boots)
    assert boots == [1, 1, 2]

    trial.result = None
    later = attrs.evolve(GOOD_HOST, uptime_s=lambda: 1000.0 + 2 * TIMEOUT_REMEMBERED_S)
    assert (await choose(AcceleratorSetting.AUTO, later, trial)).accelerator is Accelerator.KVM


async def test_running_out_of_time_says_nothing_against_a_guest_that_booted_meanwhile(choose: Chooser) -> None:
    """Profiles of one kernel are tried at the same time."""

    class Slow(Trial):
        async def __call__(self) -> TrialFailure | None:
            await choose(AcceleratorSetting.AUTO, GOOD_HOST, Trial(None))
            return TIMED_OUT

    decision = await choose(AcceleratorSetting.AUTO, GOOD_HOST, Slow(None))
    assert decision.accelerator is Accelerator.KVM
    assert (await choose(AcceleratorSetting.AUTO, GOOD_HOST, Trial(REFUSED))).accelerator is Accelerator.KVM


async def test_profiles_of_different_kernels_remember_beside_each_other(choose: Chooser, tmp_path: Path) -> None:
    first, other = choose.identity, attrs.evolve(choose.identity, kernel=tmp_path / "other")
    other.kernel.write_bytes(b"another kernel")
    works, refused = Trial(None), Trial(REFUSED)
    for _ in range(2):
        choose.identity = first
        assert (await choose(AcceleratorSetting.AUTO, GOOD_HOST, works)).accelerator is Accelerator.KVM
        choose.identity = other
        assert (await choose(AcceleratorSetting.AUTO, GOOD_HOST, refused)).accelerator is Accelerator.TCG
    assert (works.boots, refused.boots) == (1, 1)


async def test_what_was_found_before_the_host_booted_is_forgotten(choose: Chooser) -> None:
    await choose(AcceleratorSetting.AUTO, GOOD_HOST, Trial(None))
    await choose(AcceleratorSetting.AUTO, attrs.evolve(GOOD_HOST, boot_id=lambda: "boot-2"), Trial(None))
    assert len(json.loads((choose.cache / "accelerator.json").read_bytes())["verdicts"]) == 1
    trial = Trial(None)
    await choose(AcceleratorSetting.AUTO, GOOD_HOST, trial)
    assert trial.boots == 1


async def test_another_host_boot_qemu_or_kernel_is_tried_anew(choose: Chooser) -> None:
    trial = Trial(None)
    await choose(AcceleratorSetting.AUTO, GOOD_HOST, trial)
    await choose(AcceleratorSetting.AUTO, attrs.evolve(GOOD_HOST, boot_id=lambda: "boot-2"), trial)
    choose.identity.kernel.write_bytes(b"new kernel")
    await choose(AcceleratorSetting.AUTO, GOOD_HOST, trial)
    choose.identity = attrs.evolve(choose.identity, qemu_version=QemuVersion(8, 0, 0))
    await choose(AcceleratorSetting.AUTO, GOOD_HOST, trial)
    choose.identity.qemu.write_bytes(b"another program of that version")
    await choose(AcceleratorSetting.AUTO, GOOD_HOST, trial)
    assert trial.boots == 5


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b'{"boot_id": "boot-1"}', b'{"boot_id": "boot-1", "verdicts": [1]}', b"\xff\xfe"]
)
async def test_a_damaged_cache_is_as_good_as_none(choose: Chooser, damage: bytes) -> None:
    trial = Trial(None)
    await choose(AcceleratorSetting.AUTO, GOOD_HOST, trial)
    (choose.cache / "accelerator.json").write_bytes(damage)
    await choose(AcceleratorSetting.AUTO, GOOD_HOST, trial)
    assert trial.boots == 2
    (verdict,) = json.loads((choose.cache / "accelerator.json").read_bytes())["verdicts"].values()
    assert verdict["accelerator"] == "kvm"


@pytest.mark.parametrize(
    "damage", [1, {}, {"accelerator": "abacus"}, {"accelerator": "kvm", "reason": "", "until_uptime_s": ""}]
)
async def test_so_is_a_damaged_verdict(choose: Chooser, damage: object) -> None:
    await choose(AcceleratorSetting.AUTO, GOOD_HOST, Trial(None))
    cache = choose.cache / "accelerator.json"
    found = json.loads(cache.read_bytes())
    cache.write_text(json.dumps(found | {"verdicts": dict.fromkeys(found["verdicts"], damage)}))
    trial = Trial(None)
    await choose(AcceleratorSetting.AUTO, GOOD_HOST, trial)
    assert trial.boots == 1


async def test_a_cancelled_trial_is_not_remembered(choose: Chooser) -> None:
    class Endless(Trial):
        async def __call__(self) -> TrialFailure | None:
            self.boots += 1
            await trio.sleep_forever()

    with trio.CancelScope() as scope:
        scope.cancel()
        await choose(AcceleratorSetting.AUTO, GOOD_HOST, Endless(None))
    assert not (choose.cache / "accelerator.json").exists()


def test_the_facts_of_this_host_can_be_asked() -> None:
    host = linux_host()
    assert "fpu" in host.cpu_flags()
    assert len(host.boot_id()) == 36
    assert 0 < host.uptime_s() <= host.uptime_s()
