"""Where metrics are served: the table `[metrics]`."""

from __future__ import annotations

import attrs

from pool.host.metrics_socket import Place, place_of


def _is_place(_settings: object, _field: object, value: str | None) -> None:
    if value is not None:
        try:
            place_of(value)
        except ValueError as error:
            raise ValueError(f"'listen' {error}") from None


@attrs.frozen(kw_only=True)
class MetricsSettings:
    listen: str | None = attrs.field(default=None, validator=_is_place)
    """`unix:/PATH`, or a loopback address and a port. None: `vmpool metrics` alone shows them."""

    @property
    def place(self) -> Place | None:
        return None if self.listen is None else place_of(self.listen)
