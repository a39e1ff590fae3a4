"""Templates of factories: by the cases of Kata's own tests, over simulated VMs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool.kata.errors import InvalidConfigError
from tests.unit.kata.factories import Stage, small, taken
from tests.virtual_time import in_virtual_time
from vmm.errors import TemplateError
from vmm.qemu.template.store import TemplateStore


@in_virtual_time
async def test_t1_a_template_is_made_once_and_is_not_made_over() -> None:
    stage = Stage()
    async with stage.open(template=True) as factory:
        assert factory.config() == small().valid()
    with pytest.raises(InvalidConfigError, match=r"^There is already a VM template in /run/vc/vm/template$"):
        async with stage.open(template=True):
            pass
    assert stage.templates.built == 1


@in_virtual_time
async def test_t2_t5_clones_are_paused_and_come_from_a_made_and_from_a_fetched_template() -> None:
    stage = Stage()
    for fetch_only in (False, True):
        async with stage.open(template=True, fetch_only=fetch_only) as factory:
            first, second = await factory.get_base_vm(), await factory.get_base_vm()
            for vm in (first, second):
                async with taken(stage, vm):
                    assert not stage.running(vm)


def test_t3_a_template_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    """Kata looks whether memory and state are there; here they must be what was saved, too."""
    store = TemplateStore(tmp_path / "templates" / "default")

    def missing() -> str:
        with pytest.raises(TemplateError) as error:
            store.open(fingerprint="f")
        return error.value.reason

    assert missing() == "it does not exist"
    memory, state = store.begin(memory_mib=1)
    assert memory.exists()
    assert missing() == "it does not exist"
    state.write_bytes(b"state")
    store.publish(fingerprint="f")
    store.open(fingerprint="f")
    state.unlink()
    assert "No such file or directory" in missing()


@in_virtual_time
async def test_t4_a_template_that_could_not_be_made_is_tried_again() -> None:
    stage = Stage()
    stage.templates.builds_fail = True
    with pytest.raises(Exception, match="saving a template failed"):
        async with stage.open(template=True):
            pass
    assert not stage.vms.alive
    stage.templates.builds_fail = False
    async with stage.open(template=True):
        pass
    assert stage.templates.built == 1


@in_virtual_time
async def test_t6_closing_a_factory_removes_its_template_and_leaving_it_does_not() -> None:
    stage = Stage()
    async with stage.open(template=True):
        pass
    assert stage.templates.template is not None
    async with stage.open(template=True, fetch_only=True) as factory:
        await factory.aclose()
    assert stage.templates.template is None
