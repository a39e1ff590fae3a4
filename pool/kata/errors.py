"""Errors of Kata's records and services.

KataError
|- InvalidConfigError      Kata would refuse the configuration; the text is Kata's
|- ConfigMismatchError     a VM of one configuration cannot serve a request for another
|- UnsupportedError        this kind of factory or VM does not support the operation
|- WireError               JSON that Kata would not send
`- CacheError              a call to a VMCache server failed
"""

from __future__ import annotations

import attrs


class KataError(Exception):
    """Base of all intended errors of `pool.kata`."""


class InvalidConfigError(KataError):
    """Kata's own verdict on a configuration, in Kata's words."""


@attrs.frozen(kw_only=True)
class Difference:
    """`path` is the field's path in Go: HypervisorConfig.KernelParams."""

    path: str
    base: object
    new: object


class ConfigMismatchError(KataError):
    """The text is Kata's, and long; `differences` lists the fields concerned."""

    def __init__(self, message: str, *, differences: tuple[Difference, ...]) -> None:
        super().__init__(message)
        self.differences = differences


class UnsupportedError(KataError):
    """This kind of factory or VM does not support the operation. Where Kata panics, the text is Kata's."""


class WireError(KataError):
    """`path` is the field's path, such as HypervisorConfig.MemorySize; empty if the whole is not JSON."""

    def __init__(self, *, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


class CacheError(KataError):
    """A call to a VMCache server failed. `call` is its name, `code` the gRPC status as Go spells it ("Unavailable").

    `code` is empty if the server answered with something unusable.
    """

    def __init__(self, message: str, *, call: str, code: str = "") -> None:
        super().__init__(message)
        self.call = call
        self.code = code
