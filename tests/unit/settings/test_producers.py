"""A profile's table has the keys of the producer that it names; and a kind that is registered needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from actors.producer import Producer
from pool.producers import registry
from pool.producers.direct import DirectSettings
from pool.producers.kind import Making, ProducerSettings
from pool.producers.template import TemplateSettings
from pool.settings.config import ConfigError, Settings, parse_settings
from vmm.words.kinds import ProducerKind, ProductionCost


def profile(table: str) -> Settings:
    return parse_settings(f"[profiles.a]\n{table}\n", source="test")


def test_vms_boot_unless_another_producer_is_named() -> None:
    assert profile("").profiles["a"].producer == DirectSettings()


def test_the_settings_of_the_producer_are_keys_beside_the_others() -> None:
    made = profile('producer = "template"\ntemplate_directory = "/t"\ntemplate_fallback = false\nshells = 1')
    assert made.profiles["a"].producer == TemplateSettings(template_directory=Path("/t"), template_fallback=False)


def test_all_that_is_wrong_is_told_at_once_each_with_its_key() -> None:
    with pytest.raises(ConfigError) as caught:
        profile('producer = "no"\ntemplate_fallback = 1\nsize = "2"\nno_such = 1')
    assert set(caught.value.problems) == {
        "profiles.a.producer: must be one of 'direct', 'template'",
        "profiles.a.template_fallback: must be true or false, not 1",
        "profiles.a.size: must be a whole number, not '2'",
        "profiles.a: unknown key: no_such",
    }


def test_a_place_is_one_profiles() -> None:
    table = 'producer = "template"\ntemplate_directory = "/t"'
    with pytest.raises(ConfigError, match=r"profiles\.b\.template_directory: profile a already uses"):
        parse_settings(f"[profiles.a]\n{table}\n[profiles.b]\n{table}", source="test")


@attrs.frozen(kw_only=True)
class FetchedSettings(ProducerSettings):
    """A third kind, in the place of one that is there: the names are an enum."""

    kind: ClassVar[ProducerKind] = ProducerKind.TEMPLATE
    cost: ClassVar[ProductionCost] = ProductionCost.BOOT

    fetched_from: str = ""

    def make(self, making: Making) -> Producer:
        raise NotImplementedError


def test_a_kind_that_is_registered_has_its_keys_and_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PRODUCERS, ProducerKind.TEMPLATE, FetchedSettings)
    made = profile('producer = "template"\nfetched_from = "there"').profiles["a"]
    assert made.producer == FetchedSettings(fetched_from="there")
    assert made.producer.cost is ProductionCost.BOOT
