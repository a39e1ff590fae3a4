"""A service of one's own, for the length of a block."""

from __future__ import annotations
