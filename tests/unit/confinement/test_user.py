"""Whom QEMU runs as: what is decided, and what is refused."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from vmm.accounts import Account
from vmm.errors import ConfinementError, MissingFileError
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.user import QemuUser, check_program, check_tools, decide_user, device_groups
from vmm.words.confinement import UidRange

NOBODY = QemuUser(name="nobody", uid=65534, gid=65534)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def host_with(*names: str) -> dict[Account, pwd.struct_passwd]:
    accounts = {"root": 0, "vmpool": 990, "nobody": 65534, "alice": 1000}
    entries: dict[Account, pwd.struct_passwd] = {
        name: pwd.struct_passwd((name, "x", accounts[name], accounts[name] + 1, "", "/", "")) for name in names
    }
    return entries | {entry.pw_uid: entry for entry in entries.values()}


@pytest.mark.parametrize(
    ("there", "chosen"), [(("root", "vmpool", "nobody"), "vmpool"), (("root", "nobody"), "nobody")]
)
def test_where_it_cannot_it_takes_the_first_of_vmpool_and_nobody_and_says_why(
    there: tuple[str, ...], chosen: str
) -> None:
    lookup = host_with(*there).__getitem__
    decision = decide_user("auto", euid=0, lookup=lookup, obstacle=lambda _uids: "alice has one of them")
    assert decision.user is not None
    assert (decision.user.name, decision.uids) == (chosen, None)
    assert decision.shared == "alice has one of them"
    assert not decision.privileged


def test_a_root_service_gives_each_vm_a_uid_of_its_own() -> None:
    decision = decide_user("auto", euid=0, lookup=host_with("root", "vmpool").__getitem__, obstacle=lambda _uids: "")
    assert decision.uids == UidRange()
    assert decision.user is not None
    assert decision.user.uid in UidRange(), "what all of them may is asked for one of them"
    assert not decision.shared


def test_a_range_that_was_asked_for_and_is_not_free_is_an_error() -> None:
    lookup = host_with("root", "vmpool").__getitem__
    with pytest.raises(ConfinementError, match=r"service.qemu_uids: alice has one of them; choose another range"):
        decide_user(
            "auto",
            euid=0,
            lookup=lookup,
            uids=UidRange(first=1000, last=2000),
            obstacle=lambda _uids: "alice has one of them",
        )


def test_a_root_service_without_either_says_how_to_have_one() -> None:
    with pytest.raises(ConfinementError, match=r"service.qemu_user: .* vmpool or nobody .*; create one with `useradd"):
        decide_user("auto", euid=0, lookup=host_with("root").__getitem__, obstacle=lambda _uids: "taken")


def test_a_service_that_is_not_root_is_left_as_it_is() -> None:
    decision = decide_user("auto", euid=1000, lookup=host_with("alice", "vmpool").__getitem__)
    assert (decision.user, decision.privileged, decision.reason) == (None, False, "the service is not root")


@pytest.mark.parametrize("setting", ["", "root", 0])
def test_root_is_kept_if_it_is_asked_for_and_that_is_told(setting: Account) -> None:
    decision = decide_user(setting, euid=0, lookup=host_with("root", "vmpool").__getitem__)
    assert (decision.user, decision.privileged) == (None, True)


@pytest.mark.parametrize("setting", ["alice", 1000])
def test_a_user_is_named_or_numbered(setting: Account) -> None:
    decision = decide_user(setting, euid=0, lookup=host_with("alice", "vmpool").__getitem__)
    assert decision.user == QemuUser(name="alice", uid=1000, gid=1001)


def test_an_alias_of_root_is_root() -> None:
    accounts: dict[Account, pwd.struct_passwd] = {"toor": pwd.struct_passwd(("toor", "x", 0, 0, "", "/", ""))}
    assert decide_user("toor", euid=0, lookup=accounts.__getitem__).privileged


@pytest.mark.parametrize(
    ("setting", "euid", "message"),
    [
        ("bob", 0, "there is no user 'bob'; create it"),
        (7, 0, "there is no user 7; create it"),
        ("vmpool", 1000, r"only root can start QEMU as another user \(vmpool\); leave it"),
    ],
)
def test_what_cannot_be(setting: Account, euid: int, message: str) -> None:
    with pytest.raises(ConfinementError, match=f"service.qemu_user: {message}"):
        decide_user(setting, euid=euid, lookup=host_with("alice", "vmpool").__getitem__)


def test_the_services_own_name_changes_nothing() -> None:
    assert decide_user("alice", euid=1000, lookup=host_with("alice").__getitem__).user is None


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "groups"),
    [
        (0o666, 0, 0, ()),
        (0o660, 0, 104, (104,)),
        (0o660, 0, 65534, ()),
        (0o600, 65534, 0, ()),
        (0o660, 0, 0, None),
        (0o600, 0, 104, None),
        (0o640, 0, 104, None),
        (0o606, 0, 65534, None),
        (0o066, 65534, 104, None),
    ],
)
def test_the_group_that_opens_a_device(mode: int, uid: int, gid: int, groups: tuple[int, ...] | None) -> None:
    status = os.stat_result((0o020000 | mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))
    assert device_groups(status, user=NOBODY) == groups


def test_a_missing_setpriv_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingFileError, match=r"setpriv: .*install util-linux"):
        check_tools(NOBODY)


@as_root
def test_the_program_has_the_users_ids_and_nothing_of_roots() -> None:
    done = subprocess.run(
        [*NOBODY.command(groups=(12, 13)), "cat", "/proc/self/status"], check=True, capture_output=True, text=True
    )
    facts = {name: value.split() for name, _, value in (line.partition(":") for line in done.stdout.splitlines())}
    assert facts["Uid"] == facts["Gid"] == ["65534"] * 4
    assert facts["Groups"] == ["12", "13"]
    assert {facts[f"Cap{which}"][0] for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0000000000000000"}
    assert facts["NoNewPrivs"] == ["1"]


@as_root
@pytest.mark.parametrize(("mode", "above"), [(0o700, 0o755), (0o755, 0o700)])
def test_a_qemu_that_the_user_cannot_execute_or_reach_is_named_with_the_remedy(
    vm_home: Path, mode: int, above: int
) -> None:
    qemu = vm_home / "qemu"
    qemu.write_bytes(b"")
    qemu.chmod(mode)
    vm_home.chmod(above)
    with pytest.raises(MissingFileError, match=rf"qemu: {qemu} .*; QEMU runs as nobody: let it execute the program"):
        check_program(qemu, user=NOBODY)
    qemu.chmod(0o755)
    vm_home.chmod(0o755)
    check_program(qemu, user=NOBODY)


def test_kvm_is_found_as_qemus_user_finds_it(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = vm_home / "kvm"
    device.write_bytes(b"")
    monkeypatch.setattr("vmm.qemu.confinement.record.KVM_DEVICE", device)
    monkeypatch.setattr("vmm.qemu.accelerator.KVM_DEVICE", device)
    device.chmod(0o600)
    with pytest.raises(PermissionError, match="QEMU runs as nobody: mode 600"):
        Confinement(user=NOBODY).host_facts().open_kvm()
    Confinement().host_facts().open_kvm()
    device.chmod(0o666)
    Confinement(user=NOBODY).host_facts().open_kvm()


@pytest.mark.parametrize("setting", ["vmpool", "root", 1000])
def test_one_user_for_all_and_one_for_each_contradict_each_other(setting: str | int) -> None:
    with pytest.raises(ConfinementError, match=r"service.qemu_uids: service.qemu_user = .* leave out one of the two"):
        decide_user(setting, euid=0, lookup=host_with("root", "vmpool").__getitem__, uids=UidRange())
