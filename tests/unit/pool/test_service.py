"""How a service ends is decided once."""

from __future__ import annotations

from typing import Any, cast

import trio

from pool.service import _Layers

NOTHING = cast("Any", None)


def layers() -> _Layers:
    return _Layers(
        coordinator=NOTHING,
        producers={},
        endpoint=NOTHING,
        vms=NOTHING,
        info=NOTHING,
        server_settings=NOTHING,
        watcher=NOTHING,
        stop=trio.Event(),
    )


def test_to_hand_over_is_to_stop() -> None:
    service = layers()
    service._hand_over()
    assert (service.stop.is_set(), service._handing_over) == (True, True)


def test_a_service_that_stops_already_does_not_hand_over() -> None:
    """It would neither drain nor let go of its VMs."""
    service = layers()
    service.stop.set()
    service._hand_over()
    assert not service._handing_over
