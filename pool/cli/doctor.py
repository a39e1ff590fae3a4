"""`vmpool doctor`."""

from __future__ import annotations

import json as json_module
import sys
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import click

from pool.assembly.diagnosis import examine
from pool.cli.configuration import configuration_options, load_configuration
from pool.cli.options import EXIT_USAGE, failure, socket_option
from pool.cli.output import say
from pool.cli.table import cell, plain_table, print_table
from pool.host import clock
from pool.host.paths import cache_directory, default_image_directory
from pool.settings.config import ConfigError
from vmm.words.findings import Finding, Verdict

_STYLES: Final = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILURE: "bold red"}


@click.command()
@configuration_options
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON.")
@socket_option
def doctor(*, config: Path | None, kata_config: Path | None, as_json: bool, socket_path: Path) -> None:
    """Check the accelerator, QEMU, the guest image, directories, memory and limits.

    Exit code 1: the service would not start, or a profile could not produce a single VM.
    """
    try:
        loaded = load_configuration(config, kata_config)
    except ConfigError as error:
        raise failure(str(error), code=EXIT_USAGE) from error
    settings, cache = loaded.settings, loaded.cache
    findings = clock.run(
        partial(
            examine,
            settings,
            socket_path=socket_path,
            image_directory=settings.service.image_directory or default_image_directory(),
            cache_directory=cache_directory(),
            cache_endpoint=None if cache is None else cache.settings.endpoint,
            spell=loaded.spell,
        )
    )
    if as_json:
        say(json_module.dumps([attrs.asdict(f) | {"verdict": f.verdict.value} for f in findings], indent=2))
    else:
        _print(findings)
    if any(finding.verdict is Verdict.FAILURE for finding in findings):
        sys.exit(1)


def _print(findings: list[Finding]) -> None:
    table = plain_table()
    for finding in findings:
        style = _STYLES[finding.verdict]
        table.add_row(cell(finding.verdict.value, style=style), cell(finding.subject), cell(finding.detail))
        if finding.fix:
            table.add_row("", "", cell("fix:", style=style) + cell(f" {finding.fix}"))
    print_table(table)
