"""How a worker ends when its request is cancelled."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def end_gently() -> None:
    """From now on a cancelled worker raises SystemExit, to remove what is half made. Without this it ends at once."""
    _signal.signal(_signal.SIGTERM, _end)


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit
