"""`vmpool completion`."""

from __future__ import annotations

import click

from pool.cli.completion.shells import SHELLS, script


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(*, shell: str) -> None:
    """Print a script by which a shell completes command lines of vmpool: commands, options, files of the host and of a
    guest, profiles, and what is running: leases by id and name, and VMs.

    \b
    To have it in every new shell, add to ~/.bashrc, to ~/.zshrc behind compinit, or to ~/.config/fish/config.fish:
      eval "$(vmpool completion bash)"
      eval "$(vmpool completion zsh)"
      vmpool completion fish | source
    """
    click.echo(script(shell), nl=False)
