"""Why an image cannot be built or loaded."""

from __future__ import annotations

from vmm.errors import VmmError


class ImageError(VmmError):
    """The guest image cannot be built or loaded. The message ends in what to do; `stage` says how far it came."""

    def __init__(self, *, stage: str, reason: str, remedy: str) -> None:
        super().__init__(f"guest image ({stage}): {reason}; {remedy}")
        self.stage = stage
        self.reason = reason
        self.remedy = remedy


def unknown_layout(reason: str) -> ImageError:
    """The packages are there, and not what they are taken for."""
    return ImageError(
        stage="assemble",
        reason=reason,
        remedy="this Debian release is laid out otherwise than vmpool knows; report it with the output of `apt policy`",
    )
