"""What is wrong in a call is told at once, of the argument by name, and leaves nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import vmpool
import vmpool.sync
from tests.leaks import nothing_left
from tests.unit.sdk.beside import Held, ServedBeside, serving_beside


@pytest.fixture
def service(vm_home: Path) -> Iterator[ServedBeside]:
    with nothing_left(), serving_beside(vm_home) as service:
        yield service
        service.until_held(Held())


@pytest.fixture
def pool(service: ServedBeside) -> Iterator[vmpool.sync.Pool]:
    with vmpool.sync.connect(service.path) as pool:
        yield pool


@pytest.fixture
def vm(pool: vmpool.sync.Pool) -> Iterator[Any]:
    """Of no type: a type checker would find most of these mistakes."""
    with pool.vm() as vm:
        yield vm


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vm: vm.run(["echo", 1]), "expected str, bytes or os.PathLike object, not int"),
        (lambda vm: vm.run(b"echo x"), "expected str, bytes or os.PathLike object, not int"),
        (lambda vm: vm.run("true", user=1000), r"start\.user: is of type int"),
        (lambda vm: vm.run("true", environment={"A": 1}), r"start\.environment\['A'\]: is of type int"),
        (lambda vm: vm.run("true", limits={"nofile": "64"}), r"start\.limits\[0\]\.soft: is of type str"),
        (lambda vm: vm.start("true", tag=7), "tag: is of type int"),
        (lambda vm: vm.run("cat", input=["x"]), "data: a piece is of type str; send bytes"),
        (lambda vm: vm.files.write("/a", [1]), "data: a piece is of type int; send bytes"),
        (lambda vm: vm.files.write("/a", b"", mode="644"), r"start\.mode: is of type str"),
        (lambda vm: vm.files.write("/a", b"", owner=0), r"start\.owner: is of type int"),
        (lambda vm: vm.files.read(5), "expected str, bytes or os.PathLike object, not int"),
        (lambda vm: vm.forward(80.5), "expected str, bytes or os.PathLike object, not float"),
        (lambda vm: vm.reverse(0, None), "expected str, bytes or os.PathLike object, not NoneType"),
        (lambda vm: vm.reverse(0, ["127.0.0.1", 80]), "expected str, bytes or os.PathLike object, not list"),
    ],
)
def test_a_value_of_a_wrong_type(vm: Any, call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(vm)
    assert vm.run("echo still here").stdout == "still here\n"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vm: vm.run("true", timeout=math.nan), "timeout: nan is not a time limit"),
        (lambda vm: vm.forward(80, port=70000), "port: 70000 is not a TCP port"),
        (lambda vm: vm.forward(80, host=None), "host: is None; name an address of this host"),
        (lambda vm: vm.forward(80, host=""), "host: is ''; name an address of this host"),
        (lambda vm: vm.reverse(0, ("127.0.0.1", 70000)), "port: 70000 is not a TCP port"),
        (lambda vm: vm.reverse(0, ("", 80)), "host: is ''; name an address of this host"),
    ],
)
def test_a_value_that_cannot_be(vm: Any, call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(vmpool.CallError, match=message) as caught:
        call(vm)
    assert caught.value.status == "INVALID_ARGUMENT"


def test_an_error_does_not_show_what_may_be_a_secret(pool: vmpool.sync.Pool) -> None:
    secret: Any = 31337
    with pytest.raises(TypeError, match=r"^files\[0\]\.data: is of type int") as caught:
        pool.vm(files={"/key": secret})
    assert "31337" not in str(caught.value)


@pytest.mark.parametrize("ttl", [0, -1, math.inf, math.nan])
def test_a_time_to_live_that_is_none(pool: vmpool.sync.Pool, ttl: float) -> None:
    """0 would be the profile's default on the wire."""
    with pytest.raises(vmpool.CallError, match=r"ttl: .* is not a time to live"):
        pool.acquire(ttl=ttl)


@pytest.mark.parametrize("timeout", [0, -1])
def test_no_time_to_wait(vm_home: Path, timeout: float) -> None:
    """0 would be no limit on the wire."""
    with serving_beside(vm_home, boot_s=3600) as service, vmpool.sync.connect(service.path) as pool:
        with pytest.raises(vmpool.CallError) as caught:
            pool.vm(timeout=timeout)
        assert caught.value.status == "DEADLINE_EXCEEDED"


def test_no_tag_is_no_process(vm: Any) -> None:
    process = vm.start("sleep 1000")
    for nobody in ("", 0, None, str(process.process_id)):
        with pytest.raises(vmpool.CallError, match="the VM has none"):
            vm.process(nobody)


def test_paths_are_arguments_too(vm: Any) -> None:
    assert vm.run([PurePosixPath("/bin/echo"), PurePosixPath("/x")]).stdout == "/x\n"
    assert vm.run("pwd", cwd=PurePosixPath("/tmp")).stdout == "/tmp\n"


def test_no_time_limit_is_infinite(vm: Any) -> None:
    assert vm.run("true", timeout=math.inf).ok


def test_an_unknown_encoding_is_told_before_the_command_runs(vm: Any) -> None:
    with pytest.raises(LookupError, match="unknown encoding: none such"):
        vm.run("true", encoding="none such", on_stdout=lambda _: pytest.fail("it has run"))


def test_a_way_to_write_is_known_by_its_name(vm: Any) -> None:
    vm.files.write("/a", b"1", how="create")
    with pytest.raises(FileExistsError):
        vm.files.write("/a", b"2", how="create")
    with pytest.raises(ValueError, match="'overwrite' is not a valid WriteMode"):
        vm.files.write("/a", b"2", how="overwrite")


def test_what_is_no_file_is_not_uploaded(vm: Any, tmp_path: Path) -> None:
    """To open a FIFO that nobody writes to would wait without end."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="neither a regular file nor a directory"):
        vm.files.upload(tmp_path / "fifo", "/a")


def test_a_name_that_no_host_has_ends_one_connection(vm: Any) -> None:
    with vm.reverse(0, ("a..b", 80)) as guest:
        assert vm.run(["nc", "127.0.0.1", str(guest.port)], input="x").stdout == ""
