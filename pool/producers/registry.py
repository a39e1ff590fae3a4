"""The registry of producer kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pool.producers.direct import DirectSettings
from pool.producers.kind import ProducerSettings
from pool.producers.template import TemplateSettings
from vmm.words.kinds import ProducerKind

PRODUCERS: Final[Mapping[ProducerKind, type[ProducerSettings]]] = {
    kind.kind: kind for kind in (DirectSettings, TemplateSettings)
}
