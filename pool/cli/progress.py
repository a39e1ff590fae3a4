"""A progress bar of bytes, on stderr, for somebody who watches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich import progress as bars
from rich.console import Console

from pool.observe.terminal import visible


@contextlib.contextmanager
def progress_bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Gives a function that takes the number of bytes so far. Without a total, it shows that number and the rate."""
    columns: tuple[bars.ProgressColumn | str, ...] = (
        bars.TextColumn("{task.fields[shown]}", markup=False),
        *((bars.BarColumn(),) if total is not None else ()),
        bars.DownloadColumn() if total is not None else bars.FileSizeColumn(),
        bars.TransferSpeedColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=total, shown=visible(name, kept=""))
        yield lambda count: shown.update(task, completed=count)
