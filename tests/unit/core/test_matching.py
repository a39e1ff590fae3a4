"""Which pool has the machine that a request describes; and what becomes of it if none has."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from structlog.testing import capture_logs

from pool.core.matching import REMEMBERED_FILES, ForbiddenMachineError, Match, Matcher, Mismatch, WantedMachine
from pool.core.requests import RefusedError
from pool.ledger.demand import AdaptiveSize
from pool.ledger.policy import OnEmpty
from pool.producers.template import TemplateSettings
from pool.settings.config import ProfileSettings
from tests.unit.core.machines import image, make_matcher
from vmm.errors import MissingFileError
from vmm.words.kinds import ProductionCost
from vmm.words.machines import AgentKind
from vmm.words.wishes import Wishes

PLAIN = Wishes()


@pytest.fixture
def profile(tmp_path: Path) -> ProfileSettings:
    return ProfileSettings(
        **image(tmp_path, "pool"), kernel_parameters="quiet", max_vcpus=4, max_memory_mib=1024, lease_ttl_s=7.0
    )


@pytest.fixture
def matcher(profile: ProfileSettings) -> Matcher:
    return make_matcher({"default": profile})


async def match(matcher: Matcher, wishes: Wishes = PLAIN, *, administers: bool = True, **wanted: Any) -> Match:
    return await matcher.match(WantedMachine(**wanted), wishes, administers=administers)


def differing(found: Match) -> dict[str, tuple[str, ...]]:
    assert found.own is not None
    assert found.profile == ""
    return {mismatch.profile: mismatch.fields for mismatch in found.mismatches}


# -- a pool that has it ------------------------------------------------------------------------------------------------


async def test_what_says_nothing_is_served_by_the_default_profile(matcher: Matcher) -> None:
    found = await match(matcher)
    assert (found.profile, found.own, found.mismatches, found.wishes) == ("default", None, (), PLAIN)
    assert matcher.fallbacks == 0


async def test_the_same_content_at_another_path_is_the_same_machine(
    matcher: Matcher, profile: ProfileSettings, tmp_path: Path
) -> None:
    assert profile.kernel is not None
    copy, link = tmp_path / "copy", tmp_path / "link"
    shutil.copy(profile.kernel, copy)
    link.symlink_to(profile.kernel)
    for path in (copy, link):
        assert (await match(matcher, kernel=path)).profile == "default"


async def test_all_that_a_pool_has_may_be_said(matcher: Matcher, profile: ProfileSettings) -> None:
    found = await match(
        matcher,
        kernel=profile.kernel,
        initrd=profile.initrd,
        kernel_parameters=profile.kernel_parameters,
        cpu_model=profile.cpu_model,
    )
    assert found.profile == "default"


@pytest.mark.parametrize(
    "wishes",
    [Wishes(vcpus=4), Wishes(memory_mib=1024), Wishes(vcpus=2, memory_mib=512), Wishes(vcpus=1, memory_mib=16)],
    ids=str,
)
async def test_cpus_and_memory_up_to_the_maximum_come_from_the_pool(matcher: Matcher, wishes: Wishes) -> None:
    """They are hot-added, so the wishes stay; what is less than the base has is no reason to boot."""
    found = await match(matcher, wishes)
    assert (found.profile, found.wishes) == ("default", wishes)


@pytest.mark.parametrize("wishes", [Wishes(vcpus=2), Wishes(memory_mib=512)], ids=str)
async def test_guests_that_nobody_can_ask_have_no_more_than_they_began_with(
    profile: ProfileSettings, wishes: Wishes
) -> None:
    """Such a machine is booted with it."""
    silent = attrs.evolve(profile, agent=AgentKind.NOOP)
    found = await match(make_matcher({"default": silent}), wishes)
    (fields,) = differing(found).values()
    assert fields == tuple(name for name in ("vcpus", "memory_mib") if getattr(wishes, name))
    assert (found.wishes.vcpus, found.wishes.memory_mib) == (None, None)


async def test_another_profile_may_have_it(profile: ProfileSettings, tmp_path: Path) -> None:
    other = ProfileSettings(**image(tmp_path, "other", kernel=b"another"), lease_ttl_s=9.0)
    found = await match(make_matcher({"default": profile, "other": other}), kernel=other.kernel, kernel_parameters="")
    assert differing(found)["other"] == ("kernel_parameters",), "what is left open is the default profile's"
    plain = ProfileSettings(**image(tmp_path, "pool"))
    found = await match(make_matcher({"default": plain, "other": other}), kernel=other.kernel, initrd=other.initrd)
    assert (found.profile, found.settings_of) == ("other", "other")


@pytest.mark.parametrize("first", ["big", "default"])
async def test_of_two_that_have_it_the_one_that_was_left_open_serves(
    profile: ProfileSettings, tmp_path: Path, first: str
) -> None:
    """Not one that happens to stand above it in the configuration and has sixteen times its memory."""
    big = ProfileSettings(**image(tmp_path, "big"), kernel_parameters="quiet", memory_mib=4096)
    profiles = {"big": big, "default": profile} if first == "big" else {"default": profile, "big": big}
    matcher = make_matcher(profiles)
    assert (await match(matcher)).profile == "default"
    assert (await match(matcher, Wishes(memory_mib=2048))).profile == "big"


async def test_a_file_that_is_replaced_is_read_again(matcher: Matcher, tmp_path: Path) -> None:
    path = image(tmp_path, "mine")["kernel"]
    assert (await match(matcher, kernel=path)).profile == "default"
    replacement = tmp_path / "new"
    replacement.write_bytes(b"KERNEL")
    replacement.rename(path)
    assert differing(await match(matcher, kernel=path)) == {"default": ("kernel",)}
    path.write_bytes(b"kernel")
    assert (await match(matcher, kernel=path)).profile == "default"


async def test_a_file_is_read_once(matcher: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path, "mine")["kernel"]
    await match(matcher, kernel=path)
    monkeypatch.setattr("pool.core.matching._hash", lambda path: pytest.fail(f"{path} is read again"))
    await match(matcher, kernel=path)


async def test_few_files_are_remembered(matcher: Matcher, tmp_path: Path) -> None:
    for number in range(REMEMBERED_FILES + 10):
        await match(matcher, kernel=image(tmp_path, str(number))["kernel"])
    assert len(matcher._hashes) == REMEMBERED_FILES


# -- none has it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [("kernel", None), ("initrd", None), ("kernel_parameters", "quiet panic=1"), ("cpu_model", "qemu64")],
)
async def test_each_field_that_differs_is_named_and_booted_with(
    matcher: Matcher, profile: ProfileSettings, tmp_path: Path, field: str, value: str | None
) -> None:
    wanted = value or image(tmp_path, "other", kernel=b"k", initrd=b"i")[field]
    machine: dict[str, Any] = {field: wanted}
    found = await match(matcher, **machine)
    assert differing(found) == {"default": (field,)}
    spec = found.own.producer.machine.spec  # type: ignore[union-attr]
    assert getattr(spec, field) == wanted
    for name in {"kernel", "initrd", "kernel_parameters", "cpu_model", "vcpus", "memory_mib"} - {field}:
        assert getattr(spec, name) == getattr(profile, name), name


@pytest.mark.parametrize(("field", "value"), [("vcpus", 4), ("memory_mib", 1024)])
async def test_what_is_wished_is_booted_with(matcher: Matcher, field: str, value: int) -> None:
    wished: dict[str, Any] = {field: value}
    found = await match(matcher, Wishes(**wished, hostname="guest-1"), cpu_model="qemu64")
    assert found.own is not None
    assert getattr(found.own.producer.machine.spec, field) == value  # type: ignore[attr-defined]
    assert found.wishes == Wishes(hostname="guest-1"), "there is nothing left to hot-add"
    assert found.own.policy.memory_mib == (value if field == "memory_mib" else 256)


@pytest.mark.parametrize(("field", "value", "most"), [("vcpus", 5, 4), ("memory_mib", 1025, 1024)])
@pytest.mark.parametrize("wanted", [{}, {"cpu_model": "qemu64"}], ids=["the pool's", "its own"])
@pytest.mark.parametrize("administers", [True, False])
async def test_a_machine_of_ones_own_is_no_larger_than_the_profile_allows(
    matcher: Matcher, field: str, value: int, most: int, wanted: dict[str, Any], administers: bool
) -> None:
    wished: dict[str, Any] = {field: value}
    with pytest.raises(RefusedError, match=rf"{field}: {value} exceeds the maximum of profile default \({most}\)"):
        await match(matcher, Wishes(**wished), administers=administers, **wanted)
    assert matcher.fallbacks == 0


async def test_its_vms_are_counted_with_those_of_the_profile(profile: ProfileSettings) -> None:
    found = await match(make_matcher({"default": attrs.evolve(profile, max_vms=7)}), cpu_model="qemu64")
    assert found.own is not None
    assert (found.own.policy.within, found.own.policy.max_vms) == ("default", 7)


async def test_its_guests_have_the_time_that_the_profile_gives_its_own(profile: ProfileSettings) -> None:
    slow = attrs.evolve(
        profile,
        producer=TemplateSettings(),
        shells=1,
        adaptive=AdaptiveSize(maximum=3),
        hand_out_timeout_s=60.0,
        check_interval_s=0.0,
        backoff_maximum_s=7.0,
    )
    own = (await match(make_matcher({"default": slow}), kernel_parameters="panic=1")).own
    assert own is not None
    assert own.procedure == slow.procedure()
    assert own.vigil == slow.vigil()
    assert own.policy.backoff.maximum_s == 7.0
    assert (own.policy.size, own.policy.adaptive, own.policy.shells) == (0, None, 0), "and none is kept"
    assert own.policy.cost is ProductionCost.BOOT


async def test_all_that_differs_is_named_for_every_profile(profile: ProfileSettings, tmp_path: Path) -> None:
    other = ProfileSettings(**image(tmp_path, "other", kernel=b"k"))
    found = await match(make_matcher({"default": profile, "other": other}), Wishes(vcpus=4), cpu_model="qemu64")
    assert found.mismatches == (
        Mismatch(profile="default", fields=("cpu_model",)),
        Mismatch(profile="other", fields=("kernel", "kernel_parameters", "cpu_model", "vcpus")),
    )


async def test_it_is_counted_and_logged(matcher: Matcher) -> None:
    with capture_logs() as logs:
        found = await match(matcher, cpu_model="qemu64")
    assert matcher.fallbacks == 1
    assert [(line["configuration"], line["differing"]) for line in logs] == [
        (found.own.name, {"default": ("cpu_model",)})  # type: ignore[union-attr]
    ]


async def test_nothing_is_kept_ready_and_who_says_nothing_boots(matcher: Matcher) -> None:
    found = await match(matcher, cpu_model="qemu64")
    assert found.own is not None
    assert (found.own.policy.size, found.own.policy.on_empty) == (0, OnEmpty.BOOT)
    assert found.settings_of == "default"


async def test_the_same_configuration_has_the_same_name_and_another_has_another(
    matcher: Matcher, tmp_path: Path
) -> None:
    names = [
        (await match(matcher, wishes, **wanted)).own.name  # type: ignore[union-attr]
        for wishes, wanted in (
            (PLAIN, {"cpu_model": "qemu64"}),
            (Wishes(hostname="guest-1"), {"cpu_model": "qemu64", "kernel": image(tmp_path, "copy")["kernel"]}),
            (Wishes(vcpus=2), {"cpu_model": "qemu64"}),
            (PLAIN, {"cpu_model": "kvm64"}),
        )
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3


# -- CPU models -------------------------------------------------------------------------------------------------------


MORE_THAN_FEATURES = ["vmx=on", "+svm", "kvm=off", "pmu=on", "host-phys-bits-limit=40", "migratable=off", "hv-time=on"]


@pytest.mark.parametrize("feature", [*MORE_THAN_FEATURES, "realized=off", "avx2", "avx2=1", "no-such-thing=on"])
async def test_what_is_more_than_a_feature_of_the_cpu_is_for_administrators(matcher: Matcher, feature: str) -> None:
    model = f"qemu64,+avx2,{feature}"
    with pytest.raises(ForbiddenMachineError, match=rf"config\.cpu_model: {re.escape(feature)}: only root"):
        await match(matcher, administers=False, cpu_model=model)
    assert (await match(matcher, cpu_model=model)).own is not None


@pytest.mark.parametrize("features", ["", ",avx2=on", ",avx2=off,-rdrand,+sse4_2,sse4.1=on"])
async def test_features_are_for_everybody(matcher: Matcher, features: str) -> None:
    assert (await match(matcher, administers=False, cpu_model=f"qemu64{features}")).own is not None


async def test_the_model_of_a_profile_is_for_everybody(profile: ProfileSettings) -> None:
    matcher = make_matcher({"default": attrs.evolve(profile, cpu_model="max,pmu=off")})
    assert (await match(matcher, administers=False, cpu_model="max,pmu=off")).profile == "default"
    assert (await match(matcher, administers=False, cpu_model="max,pmu=off", kernel_parameters="panic=1")).own


# -- files -------------------------------------------------------------------------------------------------------------


async def test_other_files_are_for_administrators(matcher: Matcher, profile: ProfileSettings, tmp_path: Path) -> None:
    files = image(tmp_path, "copy")
    for field, path in (*files.items(), ("kernel", tmp_path / "none"), ("kernel", profile.initrd)):
        wanted: dict[str, Any] = {field: path}
        with pytest.raises(ForbiddenMachineError, match=rf"config\.{field}: no profile uses {path}") as refused:
            await match(matcher, administers=False, **wanted)
        assert refused.value.field == field


async def test_a_forbidden_file_is_not_even_looked_at(
    matcher: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool.core.matching.identify", lambda path: pytest.fail(f"{path} is looked at"))
    with pytest.raises(ForbiddenMachineError):
        await match(matcher, administers=False, kernel=tmp_path / "none")


async def test_files_of_any_profile_are_for_everybody(profile: ProfileSettings, tmp_path: Path) -> None:
    other = ProfileSettings(**image(tmp_path, "other", kernel=b"k"), kernel_parameters="quiet")
    matcher = make_matcher({"default": profile, "other": other})
    assert (await match(matcher, administers=False, kernel=other.kernel)).profile == "other"
    found = await match(matcher, administers=False, kernel=other.kernel, cpu_model="qemu64")
    assert differing(found) == {"default": ("kernel", "cpu_model"), "other": ("cpu_model",)}


async def test_a_file_that_is_not_there_is_named(matcher: Matcher, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=rf"kernel: {tmp_path / 'none'} does not exist or cannot be read"):
        await match(matcher, kernel=tmp_path / "none")


async def test_two_files_that_cannot_be_read_are_not_the_same(
    matcher: Matcher, profile: ProfileSettings, tmp_path: Path
) -> None:
    """The pool's kernel was removed while its VMs run on."""
    assert profile.kernel is not None
    profile.kernel.unlink()
    with pytest.raises(MissingFileError, match="none"):
        await match(matcher, kernel=tmp_path / "none")


async def test_what_is_no_file_is_not_read(matcher: Matcher, tmp_path: Path) -> None:
    """Opening a pipe waits for a writer, and reading this device never ends."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with trio.fail_after(20):
        for path in (pipe, Path("/dev/zero"), tmp_path):
            with pytest.raises(MissingFileError, match=str(path)):
                await match(matcher, kernel=path)


async def test_memory_that_no_step_of_hot_add_leads_to_is_booted_with(profile: ProfileSettings) -> None:
    between = attrs.evolve(profile, max_memory_mib=1000)
    found = await match(make_matcher({"default": between}), Wishes(memory_mib=999))
    assert differing(found) == {"default": ("memory_mib",)}
    assert found.own is not None
    assert found.own.policy.memory_mib == 999
