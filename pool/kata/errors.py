"""What can go wrong with Kata's records and services.

KataError
|- InvalidConfigError      Kata would refuse the configuration; the text is Kata's
|- ConfigMismatchError     a VM of one configuration cannot serve a request for another
|- UnsupportedError        this kind of factory, or of VM, cannot do that
|- WireError               JSON that is not what Kata sends
`- CacheError              a VMCache server did not do what it was asked
"""

from __future__ import annotations

import attrs


class KataError(Exception):
    """Base of everything that `pool.kata` raises on purpose."""


class InvalidConfigError(KataError):
    """Kata's own verdict on a configuration, in Kata's words."""


@attrs.frozen(kw_only=True)
class Difference:
    """`path` is the field's in Go: HypervisorConfig.KernelParams."""

    path: str
    base: object
    new: object


class ConfigMismatchError(KataError):
    """The text is Kata's, and long; `differences` says which fields it is about."""

    def __init__(self, message: str, *, differences: tuple[Difference, ...]) -> None:
        super().__init__(message)
        self.differences = differences


class UnsupportedError(KataError):
    """This kind of factory, or of VM, cannot do that. Where Kata panics, the text is Kata's."""


class WireError(KataError):
    """`path` is the field's, as in HypervisorConfig.MemorySize; empty if the whole is no JSON."""

    def __init__(self, *, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


class CacheError(KataError):
    """A call to a VMCache server failed. `call` is its name, `code` the gRPC status as Go spells it ("Unavailable").

    `code` is empty if the server answered, but with what cannot be used.
    """

    def __init__(self, message: str, *, call: str, code: str = "") -> None:
        super().__init__(message)
        self.call = call
        self.code = code
