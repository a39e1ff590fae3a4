"""Errors of building or loading an image."""

from __future__ import annotations

from vmm.errors import VmmError


class ImageError(VmmError):
    """The guest image cannot be built or loaded. The message ends with a remedy; `stage` is the step that failed."""

    def __init__(self, *, stage: str, reason: str, remedy: str) -> None:
        super().__init__(f"guest image ({stage}): {reason}; {remedy}")
        self.stage = stage
        self.reason = reason
        self.remedy = remedy


def unknown_layout(reason: str) -> ImageError:
    """The error for packages whose contents are not as expected."""
    return ImageError(
        stage="assemble",
        reason=reason,
        remedy="this Debian release has a layout unknown to vmpool; report it with the output of `apt policy`",
    )
