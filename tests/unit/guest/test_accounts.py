"""Users and groups, as the guest's files have them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from vmm.guest.agent import accounts
from vmm.guest.agent.accounts import UnknownAccountError


@pytest.fixture
def passwd(tmp_path: Path) -> str:
    path = tmp_path / "passwd"
    path.write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        "# somebody:x:7:7::/:/bin/sh\n"
        "short:x:8\n"
        "lettered:x:a:b::/:/bin/sh\n"
        "user:x:1000:1000:A User:/home/user:/bin/bash\n"
        "alias:x:1000:1000::/home/alias:\n"
        "1001:x:1002:1002::/home/number:/bin/sh\n"
        "homeless:x:1003:1003:::\n"
    )
    return str(path)


@pytest.fixture
def group(tmp_path: Path) -> str:
    path = tmp_path / "group"
    path.write_text("root:x:0:\nwheel:x:10:user,root\nuser:x:1000:\naudio:x:29:alias,user\nplug:x:28:user2\n")
    return str(path)


def test_a_user_is_found_by_name_and_by_number(passwd: str) -> None:
    by_name = accounts.find_user("user", path=passwd)
    assert (by_name.uid, by_name.gid, by_name.home, by_name.shell) == (1000, 1000, "/home/user", "/bin/bash")
    assert accounts.find_user("1000", path=passwd).name == "user", "the first of several"
    assert accounts.find_user("1001", path=passwd).uid == 1002, "a name comes before a number"


def test_what_is_left_empty_has_a_default(passwd: str) -> None:
    homeless = accounts.find_user("homeless", path=passwd)
    assert (homeless.home, homeless.shell) == ("/", "/bin/sh")


def test_a_number_without_a_name_has_a_group_of_its_own(passwd: str) -> None:
    nobody_yet = accounts.find_user("4321", path=passwd)
    assert (nobody_yet.name, nobody_yet.uid, nobody_yet.gid) == ("", 4321, 4321)


@pytest.mark.parametrize("user", ["", "root", "0"])
def test_root_is_there_without_the_file(user: str) -> None:
    assert accounts.find_user(user, path="/nowhere/passwd") is accounts.ROOT


@pytest.mark.parametrize(
    "user", ["somebody", "short", "lettered", "-1", "4294967295", "99999999999", "\u0661\u0660", " user"]
)
def test_what_is_no_user_is_refused_by_its_field(passwd: str, user: str) -> None:
    with pytest.raises(UnknownAccountError) as refusal:
        accounts.find_user(user, part="owner", path=passwd)
    assert (refusal.value.errno, refusal.value.part) == (errno.EINVAL, "owner")


def test_groups_by_name_and_number(group: str) -> None:
    assert accounts.find_group("wheel", path=group) == 10
    assert accounts.find_group("77", path=group) == 77
    with pytest.raises(UnknownAccountError, match="group: the guest has no group 'nogroup'"):
        accounts.find_group("nogroup", path=group)


def test_a_users_groups_begin_with_its_own(passwd: str, group: str) -> None:
    assert accounts.groups_of(accounts.find_user("user", path=passwd), path=group) == [1000, 10, 29]
    assert accounts.groups_of(accounts.find_user("4321", path=passwd), path=group) == [4321]


def test_names_of_numbers(passwd: str, group: str) -> None:
    assert accounts.user_names(path=passwd)[1000] == "user", "the first of several"
    assert accounts.group_names(path=group)[29] == "audio"
