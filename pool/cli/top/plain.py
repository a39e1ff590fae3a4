"""One view as plain text, for scripts."""

from __future__ import annotations

import datetime as dt

import trio
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pool.cli.top import rows
from pool.cli.top.board import Board
from vmpool import Client


async def look_once(client: Client) -> str:
    """Raises ClientError."""
    board = Board()
    async with client.watch() as changes:
        snapshot = await anext(changes)
        board.change(snapshot, now=trio.current_time(), at=dt.datetime.now().astimezone())
    board.status(await client.status(), now=trio.current_time())
    return text_of(board, now=trio.current_time())


def text_of(board: Board, *, now: float) -> str:
    """Without colours; as wide as it must be."""
    tables = [
        _table(rows.POOLS, rows.pool_rows(board)),
        _table(rows.VMS, rows.vm_rows(board, now=now)),
        _table(rows.LEASES, rows.lease_rows(board, now=now, whole_ids=True)),
    ]
    parts = [Text(rows.headline(board)), *(part for table in tables if table.row_count for part in (Text(), table))]
    console = Console(color_system=None)
    wide = console.options.update_width(10_000)
    console.width = max(Measurement.get(console, wide, part).maximum for part in parts)
    with console.capture() as captured:
        console.print(Group(*parts))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _table(columns: tuple[str, ...], lines: list[rows.Row]) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    for line in lines:
        table.add_row(*map(Text, line.cells))
    return table
