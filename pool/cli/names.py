"""Types of arguments that name something a service has. A shell completes them.

What asks the service is imported only then: a command's start should not pay for it.
"""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import CompletionItem

from pool.cli.words import Text


class _Lease(Text):
    name = "lease"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem[str]]:
        from pool.cli.completion.suggestions import leases  # noqa: PLC0415

        return leases(ctx, incomplete)


class _Profile(Text):
    name = "profile"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - idem
        incomplete: str,
    ) -> list[CompletionItem[str]]:
        from pool.cli.completion.suggestions import profiles  # noqa: PLC0415

        return profiles(ctx, incomplete)


class _Vm(Text):
    name = "vm"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - idem
        incomplete: str,
    ) -> list[CompletionItem[str]]:
        from pool.cli.completion.suggestions import vms  # noqa: PLC0415

        return vms(ctx, incomplete)


LEASE: Final = _Lease()
PROFILE: Final = _Profile()
VM: Final = _Vm()
