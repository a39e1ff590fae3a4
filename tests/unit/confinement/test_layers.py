"""Which layers there are: tried, not guessed, and told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

import attrs
import pytest

from pool.settings.config import ConfigError, Settings, parse_settings
from tests.leaks import nothing_left
from vmm.errors import ConfinementError, JailError
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.layers import Layers, find_layers, remedy, require_layers
from vmm.qemu.confinement.making import jailed, report, user_for
from vmm.qemu.confinement.plan import CgroupPlan, Controller
from vmm.qemu.confinement.user import UserDecision
from vmm.qemu.jailer.client import Jailer
from vmm.qemu.jailer.protocol import Files, Identity, Request
from vmm.words.confinement import ConfinementWish, Layer, Requirement, UidRange

NOTHING = Files(programs=[], devices=[])


class Ended:
    def wait(self) -> None: ...


@attrs.define
class Host:
    """Lets us have all but some namespaces, others only within a user namespace, and Landlock or not."""

    refuses: frozenset[str] = frozenset()
    privileged: bool = True
    broken: bool = False
    others: bool = True
    """Whether we may become somebody else."""
    asked: list[Request] = attrs.field(factory=list)

    def start(self, request: Request, descriptors: Sequence[int]) -> Ended:
        if self.broken:
            raise JailError(stage="jailer", errno=0, reason="the jailer exited at once")
        self.asked.append(request)
        if request["identity"] is not None and not self.others:
            raise JailError(stage="user", errno=1, reason="Operation not permitted")
        namespaces = set(request["namespaces"])
        if not self.privileged and namespaces and "user" not in namespaces:
            raise JailError(stage="namespaces", errno=1, reason="Operation not permitted")
        wanted = namespaces | ({"landlock"} if request["landlock"] else set())
        for refused in sorted(self.refuses & wanted):
            raise JailError(stage=refused, errno=1, reason=f"no {refused}")
        return Ended()


def found(host: Host) -> Layers:
    return find_layers(cast("Jailer", host), wanted=list(Layer), identity=None, files=NOTHING)


def test_where_all_can_be_had_one_attempt_tells() -> None:
    host = Host()
    assert found(host) == Layers(applied=frozenset(Layer))
    assert len(host.asked) == 1


def test_one_that_cannot_be_had_costs_no_other() -> None:
    layers = found(Host(refuses=frozenset({"net", "landlock"})))
    assert layers.missing == {Layer.NETWORK_NAMESPACE: "no net", Layer.LANDLOCK: "no landlock"}
    assert layers.applied == frozenset(Layer) - layers.missing.keys()


def test_a_user_without_user_namespaces_has_no_other_either() -> None:
    layers = found(Host(refuses=frozenset({"user"}), privileged=False))
    assert layers.applied == {Layer.LANDLOCK, Layer.SECCOMP}
    assert layers.missing[Layer.USER_NAMESPACE] == "no user"


def test_root_does_without_user_namespaces() -> None:
    assert found(Host(refuses=frozenset({"user"}))).missing.keys() == {Layer.USER_NAMESPACE}


def test_a_jailer_that_does_not_start_is_an_error_and_no_missing_layer() -> None:
    with pytest.raises(JailError, match="the jailer exited at once"):
        found(Host(broken=True))


def test_who_cannot_start_anything_as_that_user_is_told_of_the_setting() -> None:
    """As root of a user namespace that has nobody else."""
    host = cast("Jailer", Host(others=False))
    with pytest.raises(
        ConfinementError, match=r"service.qemu_user: .*uid 65534: Operation not permitted; in a container"
    ):
        find_layers(host, wanted=list(Layer), identity=Identity(uid=65534, gid=65534, groups=[]), files=NOTHING)


def test_required_means_all_of_them() -> None:
    layers = Layers(missing={Layer.LANDLOCK: "Operation not supported"})
    require_layers(Requirement.AUTO, layers)
    require_layers(Requirement.REQUIRED, Layers())
    with pytest.raises(ConfinementError, match=r"landlock: Operation not supported; boot Linux 5.13 or newer"):
        require_layers(Requirement.REQUIRED, layers)


def test_each_layer_has_a_remedy() -> None:
    assert remedy(Layers()) == ""
    assert all(remedy(Layers(missing={layer: "no"})) for layer in Layer)


# -- as it is configured -----------------------------------------------------------------------------------------------


def settings(service: str) -> Settings:
    return parse_settings(f"[service]\n{service}\n[profiles.default]\n", source="test")


def layers_of(service: str) -> Layers:
    ours = settings(service)
    with (
        nothing_left(),
        jailed(ours.service.confinement_wish, user=user_for(ours.service.confinement_wish)) as confinement,
    ):
        return confinement.layers


def test_off_is_none() -> None:
    assert layers_of('confinement = "off"') == Layers()


def test_what_is_left_out_is_not_missed() -> None:
    layers = layers_of('confinement_except = ["seccomp", "uts-namespace"]')
    assert not {Layer.SECCOMP, Layer.UTS_NAMESPACE} & (layers.applied | layers.missing.keys())


@pytest.mark.parametrize(
    ("service", "problem"),
    [
        ('confinement = "some"', r"service.confinement: must be one of 'auto', 'off', 'required'"),
        (
            'confinement_except = ["walls"]',
            r"service.confinement_except: must be a list of layers; use any of user-namespace",
        ),
        ('confinement_except = "seccomp"', r"service.confinement_except: must be a list of layers"),
        ("confinement_except = [1]", r"service.confinement_except: must be a list of layers"),
        ('qemu_uids = "5"', r"service.qemu_uids: must be a range like"),
        ("qemu_uids = 5", r"service.qemu_uids: must be a range like"),
    ],
)
def test_what_cannot_be_configured_is_refused_by_key(service: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        settings(service)


def test_people_are_told_of_each() -> None:
    told = report(
        ConfinementWish(),
        user=UserDecision(user=None, reason="the service is root", uids=UidRange()),
        confinement=Confinement(
            layers=Layers(applied=frozenset({Layer.SECCOMP}), missing={Layer.LANDLOCK: "not supported"}),
            cgroups=CgroupPlan(missing={Controller.CPU: "not mounted"}),
        ),
    )
    said: dict[str, Any] = {state.name: (state.applied, state.detail) for state in told.states}
    assert said["uid"] == (True, f"of {UidRange()}")
    assert said["seccomp"] == (True, "")
    assert said["landlock"] == (False, "not supported")
    assert said["pid-namespace"] == (False, "the configuration leaves it out")
    assert said["cpu-cgroup"] == (False, "not mounted")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has uids to give")
def test_who_names_a_user_has_one_for_all_and_is_told() -> None:
    ours = settings('qemu_user = "nobody"\nconfinement = "off"')
    with jailed(ours.service.confinement_wish, user=user_for(ours.service.confinement_wish)) as confinement:
        wish = ours.service.confinement_wish
        uid = report(wish, user=user_for(wish), confinement=confinement).states[0]
    assert (uid.name, uid.applied, uid.detail) == ("uid", False, "the configuration says so")
