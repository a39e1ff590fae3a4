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
