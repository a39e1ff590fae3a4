"""The user that QEMU runs as, and that user's rights."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from vmm.accounts import KEEP, Account, Lookup, look_up, named_account
from vmm.errors import ConfinementError, MissingFileError
from vmm.qemu.confinement.uids import obstacle as uids_obstacle
from vmm.words.confinement import AUTO_USER, UidRange

CANDIDATES: Final = ("vmpool", "nobody")

_ASK_LIMIT_S: Final = 10.0


@attrs.frozen(kw_only=True)
class QemuUser:
    """An unprivileged user. QEMU gets its uid and gid, and no supplementary group but that of /dev/kvm."""

    name: str
    uid: int
    gid: int

    def command(self, *, groups: Sequence[int] = ()) -> list[str]:
        """The prefix of a command line that executes the rest as this user, permanently without capabilities."""
        return [
            "setpriv",
            f"--reuid={self.uid}",
            f"--regid={self.gid}",
            f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--no-new-privs",
            "--",
        ]


@attrs.frozen(kw_only=True)
class UserDecision:
    """The user that QEMU runs as, and the reason in a sentence. None: the service's user."""

    user: QemuUser | None
    reason: str
    privileged: bool = False
    """QEMU runs as root."""
    uids: UidRange | None = None
    """Each VM has one of these uids; `user` is then one of them."""
    shared: str = ""
    """Why all VMs share one uid, although each should have its own."""


def decide_user(
    setting: Account,
    *,
    euid: int,
    lookup: Lookup = look_up,
    uids: UidRange | None = None,
    obstacle: Callable[[UidRange], str] = uids_obstacle,
) -> UserDecision:
    """With `uids` None the default range is used, and one user for all VMs if that is not available.

    Raises ConfinementError if the user does not exist, the service may not become it, or the range is not available.
    Blocks for some ms.
    """
    root = euid == 0
    if uids is not None and setting != AUTO_USER:
        raise ConfinementError(
            what="service.qemu_uids",
            reason=f"service.qemu_user = {setting!r} names one user for all VMs",
            remedy="leave out one of the two",
        )
    if setting in KEEP:
        return UserDecision(user=None, reason="the configuration says so", privileged=root)
    if setting == AUTO_USER:
        if root:
            return _decide_automatically(lookup, uids, obstacle)
        return UserDecision(user=None, reason="the service is not root")
    entry = named_account(setting, euid=euid, lookup=lookup)
    if entry.pw_uid == 0:
        return UserDecision(user=None, reason="the configuration says so", privileged=root)
    if entry.pw_uid == euid:
        return UserDecision(user=None, reason=f"the service is {entry.pw_name} already")
    return UserDecision(user=_user(entry), reason="the configuration says so")


def _decide_automatically(lookup: Lookup, uids: UidRange | None, obstacle: Callable[[UidRange], str]) -> UserDecision:
    wanted = uids or UidRange()
    hindered = obstacle(wanted)
    if not hindered:
        user = QemuUser(name=f"a uid of {wanted}", uid=wanted.first, gid=wanted.first)
        return UserDecision(user=user, uids=wanted, reason="the service is root")
    if uids is not None:
        raise ConfinementError(what="service.qemu_uids", reason=hindered, remedy="choose another range")
    for name in CANDIDATES:
        try:
            entry = lookup(name)
        except KeyError:
            continue
        reason = "the service is root" if name == CANDIDATES[0] else f"the service is root and has no {CANDIDATES[0]!r}"
        return UserDecision(user=_user(entry), reason=reason, shared=hindered)
    raise ConfinementError(
        what="service.qemu_user",
        reason=f"the service is root, and there is no user {' or '.join(CANDIDATES)} for QEMU",
        remedy="create one with `useradd --system vmpool`, or name another",
    )


def _user(entry: pwd.struct_passwd) -> QemuUser:
    return QemuUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def device_groups(device: os.stat_result, *, user: QemuUser) -> tuple[int, ...] | None:
    """The groups that `user` needs to read and write a device, by its mode; None if no group helps.

    Root's group is never given: it owns too much else.
    """
    read_and_write = 0o6
    mode = stat.S_IMODE(device.st_mode)
    owner, group, others = ((mode >> shift) & read_and_write == read_and_write for shift in (6, 3, 0))
    if user.uid == device.st_uid:
        return () if owner else None
    if user.gid == device.st_gid:
        return () if group else None
    if others:
        return ()
    return (device.st_gid,) if group and device.st_gid != 0 else None


def check_tools(user: QemuUser) -> None:
    """Raises MissingFileError if the program to become `user` with is missing."""
    if shutil.which("setpriv") is None:
        raise MissingFileError(
            field="setpriv",
            path="setpriv",
            remedy=f"install util-linux, which QEMU is started with as {user.name}, or set service.qemu_user",
        )


def check_program(program: Path, *, user: QemuUser) -> None:
    """Raises MissingFileError if `user` cannot reach or execute QEMU's program.

    A program cannot be passed by descriptor, as other files are: it looks for firmware and modules beside itself. The
    kernel makes the check, as it knows access lists and more. Blocks for some 3 ms.
    """
    if not user_may("-x", program, user=user):
        raise MissingFileError(
            field="qemu",
            path=program,
            remedy=f"QEMU runs as {user.name}: let it execute the program and pass the directories above it "
            f"(`namei -l {program}` shows their modes), or choose another service.qemu_user",
        )


def user_may(test: str, path: Path, *, user: QemuUser, pass_fds: Sequence[int] = ()) -> bool:
    """The result of `test -r`, `-x` and so on for that user, of a path or a passed descriptor."""
    done = subprocess.run(
        [*user.command(), "test", test, str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        pass_fds=pass_fds,
        check=False,
        cwd="/",
        timeout=_ASK_LIMIT_S,
    )
    return done.returncode == 0
