"""A template on disk: whole or not there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmm.errors import TemplateError
from vmm.qemu.template.store import Template, TemplateStore


@pytest.fixture
def store(tmp_path: Path) -> TemplateStore:
    return TemplateStore(tmp_path / "templates" / "small")


def publish(store: TemplateStore, *, fingerprint: str = "f1") -> Template:
    memory, state = store.begin(memory_mib=1)
    memory.write_bytes(b"m" * 2**20)
    state.write_bytes(b"state")
    return store.publish(fingerprint=fingerprint)


def test_a_published_template_is_found_again(store: TemplateStore) -> None:
    published = publish(store)
    opened = store.open(fingerprint="f1")

    assert opened == published
    assert opened.memory.stat().st_mode & 0o777 == 0o400
    assert store.directory.stat().st_mode & 0o777 == 0o700


def test_there_is_none_in_an_empty_place(store: TemplateStore) -> None:
    with pytest.raises(TemplateError, match="it does not exist"):
        store.open(fingerprint="f1")


def test_that_of_another_machine_is_not_ours(store: TemplateStore) -> None:
    publish(store, fingerprint="old")
    with pytest.raises(TemplateError, match="it is another machine"):
        store.open(fingerprint="new")


def test_a_half_built_one_is_none(store: TemplateStore) -> None:
    """As after SIGKILL between any two steps of a build: the manifest is the last."""
    memory, state = store.begin(memory_mib=1)
    memory.write_bytes(b"m")
    with pytest.raises(TemplateError, match="it does not exist"):
        store.open(fingerprint="f1")
    state.write_bytes(b"s")
    (store.directory / "manifest.new").write_text("{")
    with pytest.raises(TemplateError, match="it does not exist"):
        store.open(fingerprint="f1")


def test_a_place_has_one_owner_at_a_time(store: TemplateStore) -> None:
    """Two would remove each other's templates, half-built ones too."""
    other = TemplateStore(store.directory)
    with store.own():
        publish(store)
        with pytest.raises(TemplateError, match=f"process {os.getpid()} uses it .*template_directory"), other.own():
            pass
        assert other.open(fingerprint="f1"), "it may be used"
    with other.own():
        pass
    assert list(store.directory.parent.iterdir()) == [store.directory]


def test_the_lock_of_a_dead_owner_locks_nobody_out(store: TemplateStore) -> None:
    store.directory.parent.mkdir(mode=0o700)
    (store.directory.parent / "small.lock").write_text("4711\n")
    with store.own():
        publish(store)


def test_a_place_among_those_of_others_has_no_lock(store: TemplateStore) -> None:
    store.directory.parent.mkdir()
    store.directory.parent.chmod(0o777)
    with pytest.raises(TemplateError, match="open to others"), store.own():
        pass


@pytest.mark.parametrize("name", ["memory", "state"])
@pytest.mark.parametrize("fault", ["truncated", "corrupted", "missing"])
def test_a_damaged_one_is_none(store: TemplateStore, name: str, fault: str) -> None:
    publish(store)
    path = store.directory / name
    path.chmod(0o600)
    match fault:
        case "truncated":
            os.truncate(path, path.stat().st_size - 1)
        case "corrupted":
            with path.open("r+b") as file:
                file.seek(2)
                file.write(b"X")
        case "missing":
            path.unlink()

    with pytest.raises(TemplateError, match=name):
        store.open(fingerprint="f1")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"fingerprint": 3}', '{"fingerprint": "f1", "memory": {}, "state": {}}']
)
def test_a_manifest_that_says_nothing_is_none(store: TemplateStore, text: str) -> None:
    publish(store)
    (store.directory / "manifest.json").write_text(text)
    with pytest.raises(TemplateError):
        store.open(fingerprint="f1")


def test_an_unknown_key_in_the_manifest_is_of_another_version(store: TemplateStore) -> None:
    publish(store)
    manifest = store.directory / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"compressed": True}))
    with pytest.raises(TemplateError, match="cannot be used"):
        store.open(fingerprint="f1")


def test_what_happens_to_it_later_is_noticed_before_a_clone(store: TemplateStore) -> None:
    template = publish(store)
    template.check()

    template.memory.chmod(0o600)  # nobody writes there by mistake
    os.truncate(template.memory, 3)
    with pytest.raises(TemplateError, match="have changed"):
        template.check()
    template.memory.unlink()
    with pytest.raises(TemplateError, match="No such file"):
        template.check()


def test_a_new_build_replaces_the_old_one(store: TemplateStore) -> None:
    old = publish(store, fingerprint="old")
    publish(store, fingerprint="new")

    assert store.open(fingerprint="new").fingerprint == "new"
    with pytest.raises(TemplateError):
        old.check()


def test_no_room_is_told_beforehand(store: TemplateStore) -> None:
    with pytest.raises(TemplateError, match=r"MiB are needed and .* are free; .* template_directory"):
        store.begin(memory_mib=2**40)
    assert not list(store.directory.iterdir())


def test_clearing_an_empty_place_does_nothing(store: TemplateStore) -> None:
    store.clear()
    store.clear()
    assert not store.directory.exists()


def test_a_place_that_others_can_write_to_is_not_trusted(store: TemplateStore) -> None:
    publish(store)
    store.directory.parent.chmod(0o777)
    with pytest.raises(TemplateError, match="open to others"):
        store.open(fingerprint="f1")
    with pytest.raises(TemplateError, match="open to others"):
        store.begin(memory_mib=1)


def test_a_place_that_others_can_read_is_not_trusted(store: TemplateStore) -> None:
    publish(store)
    store.directory.chmod(0o755)
    with pytest.raises(TemplateError, match="open to others"):
        store.open(fingerprint="f1")


def test_what_is_not_a_templates_is_never_removed(store: TemplateStore) -> None:
    """A template_directory that was somebody's: nothing in it may be lost, not even by a build."""
    store.directory.mkdir(parents=True, mode=0o700)
    (store.directory / "thesis.txt").write_text("years of work")
    for attempt in (store.clear, lambda: store.begin(memory_mib=1)):
        with pytest.raises(TemplateError, match=r"it has other files \(thesis.txt\).*template_directory"):
            attempt()
    assert (store.directory / "thesis.txt").read_text() == "years of work"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory like /dev/shm: everybody's, and sticky."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o1777)
        yield place


def test_a_place_in_dev_shm_is_as_good_as_any(shared: Path) -> None:
    """What is ours there, nobody else can remove or rename."""
    store = TemplateStore(shared / "x")
    store.check_place(writes=True)
    with store.own():
        publish(store)
        assert store.open(fingerprint="f1")
    store.check_place(writes=True)
    store.clear()
    assert list(shared.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["x", "x.lock"])
def test_what_somebody_else_put_there_first_is_refused(shared: Path, name: str) -> None:
    squatted = shared / name
    squatted.touch() if name.endswith("lock") else squatted.mkdir(mode=0o700)
    os.chown(squatted, 65534, 65534)
    with pytest.raises(TemplateError, match=rf"{squatted} is .*uid 65534.*; remove it, or set template_directory"):
        TemplateStore(shared / "x").check_place(writes=True)


def test_a_place_that_can_never_be_is_told_of_beforehand(tmp_path: Path) -> None:
    """Not when the first template is built: nobody may be looking then."""
    (tmp_path / "file").touch()
    for place, why in (
        ("/proc/vmpool/x", "No such file or directory: /proc; set template_directory to a path that can be created"),
        (f"{tmp_path}/file/x", "it is not a directory; set template_directory to another place"),
        (f"{tmp_path}/file", f"{tmp_path}/file is not a directory; remove it, or set template_directory"),
    ):
        with pytest.raises(TemplateError, match=why):
            TemplateStore(Path(place)).check_place(writes=True)


def test_a_place_that_is_used_for_something_else_is_told_of_beforehand(store: TemplateStore) -> None:
    store.directory.mkdir(parents=True, mode=0o700)
    (store.directory / "thesis.txt").touch()
    for writes in (True, False):
        with pytest.raises(TemplateError, match=r"it has other files \(thesis.txt\)"):
            store.check_place(writes=writes)


def test_looking_makes_nothing(store: TemplateStore, tmp_path: Path) -> None:
    for writes in (True, False):
        store.check_place(writes=writes)
    assert list(tmp_path.iterdir()) == []


def test_who_only_fetches_needs_no_place_to_write_to() -> None:
    TemplateStore(Path("/proc/vmpool/x")).check_place(writes=False)


def test_a_place_that_is_no_directory_is_named(store: TemplateStore) -> None:
    store.directory.parent.mkdir(parents=True, mode=0o700)
    store.directory.write_text("a file")
    with pytest.raises(TemplateError, match="not a directory"):
        store.clear()
    assert store.directory.read_text() == "a file"
