"""Entry point. A command is imported when it is called, so that `--help` and `status` start fast."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import click

from pool.cli.catalogue import COMMANDS, SECTIONS, WORDS_OF_OTHERS
from pool.cli.streams import (
    STDOUT,
    NobodyReadsError,
    abandon,
    flush_or_abandon_output,
    prepare_output,
    reserve_standard_descriptors,
)

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_COMPLETE: Final = "_VMPOOL_COMPLETE"
"""With it in the environment, as the scripts in pool/cli/completion have it, the command completes a line."""


def _import(name: str) -> ModuleType:
    """Imports a module, and exempts it from garbage collection, which would take a fifth of a short command's time."""
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


class LazyGroup(click.Group):
    """Lists commands by name and one line of help, and imports a command when it is called. More can be added."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """As click's, but exits with 130 on an interrupt, as in a shell, and reports output that cannot be written."""
        reserve_standard_descriptors()
        prepare_output()
        if _COMPLETE in os.environ:
            from pool.cli.completion.shells import register_shells  # noqa: PLC0415

            register_shells()
        atexit.register(gc.freeze)  # the process ends: collecting cycles is a waste
        try:
            code = super().main(*args, **(extra | {"standalone_mode": False, "complete_var": _COMPLETE}))
            sys.stdout.flush()
        except click.ClickException as error:
            with contextlib.suppress(OSError):  # stderr cannot be written to
                error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            abandon(STDOUT)
            _remark("interrupted")
            code = 130
        except (NobodyReadsError, BrokenPipeError):
            code = 128 + signal.SIGPIPE
        except OSError as error:
            _remark(f"{error.strerror}: {error.filename or 'standard output'}")
            code = 1
        finally:
            flush_or_abandon_output()
        sys.exit(code if isinstance(code, int) else 0)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _keeping_broken_pipes():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _keeping_broken_pipes():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*COMMANDS, *self.commands]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            if args[0] in WORDS_OF_OTHERS:
                raise click.UsageError(
                    f"No such command {args[0]!r}; `vmpool {WORDS_OF_OTHERS[args[0]]}` does that.", ctx
                ) from error
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self.list_commands(ctx), ctx=ctx) from error

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - idem
        if cmd_name not in COMMANDS:
            return self.commands.get(cmd_name)
        module, _, attribute = COMMANDS[cmd_name].target.partition(":")
        command = getattr(_import(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - click, too, imports it only here

        listed = [(name, entry.summary) for name, entry in COMMANDS.items()]
        listed += [(name, command.get_short_help_str()) for name, command in self.commands.items()]
        fitting = [CompletionItem(name, help=summary) for name, summary in listed if name.startswith(incomplete)]
        return fitting or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - idem
        widest = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), entry.summary) for name, entry in section.items()])


@contextlib.contextmanager
def _keeping_broken_pipes() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise NobodyReadsError from error


def _remark(text: str) -> None:
    with contextlib.suppress(OSError):  # stderr cannot be written to, so there is no way to report it
        click.echo(f"vmpool: {text}", err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vmpool")
def main() -> None:
    """A fresh virtual machine, now: vmpool keeps QEMU VMs warm and hands them out in milliseconds.

    The service's socket is --socket, else $VMPOOL_SOCKET, else $XDG_RUNTIME_DIR/vmpool/vmpool.sock, else
    /run/vmpool/vmpool.sock.
    """


if __name__ == "__main__":
    main()
