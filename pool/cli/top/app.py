"""The live view: textual, on asyncio, which is a guest of the trio run that feeds it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar, Final

import trio
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from pool.cli.top import rows
from pool.cli.top.board import Board
from pool.cli.top.feed import Feed
from pool.observe.terminal import visible
from vmpool.client import Client, ClientError
from vmpool.wire.crossing import open_loop

REPAINT_S: Final = 0.1
"""Between looks whether there is something new."""

EVENTS_SHOWN: Final = 8

Do = Callable[[Client], Awaitable[Any]]


class ConsoleScreen(ModalScreen[None]):
    """The end of a VM's console."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,c,q", "dismiss", "Back"),
    ]

    def __init__(self, vm_id: str, text: str) -> None:
        super().__init__()
        self._vm_id = vm_id
        self._text = text

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="console") as scroll:
            scroll.border_title = Text(f"console of {visible(self._vm_id, kept='')}")
            # A serial console ends lines with CR LF.
            yield Static(Text(visible(self._text.replace("\r\n", "\n")) or "(nothing was written to it)"), id="text")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#console", VerticalScroll).scroll_end(animate=False)


class TopApp(App[None]):
    """Shows a board, and does what keys ask for."""

    TITLE = "vmpool top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #headline, #latencies { height: 1; }
    #headline { text-style: bold; }
    DataTable { height: auto; max-height: 40%; border: round $primary; }
    #pools { max-height: 30%; }
    #events { height: auto; border: round $primary; }
    #console { border: round $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "drain", "Drain/undrain the profile"),
        Binding("e", "evict", "Evict the VM"),
        Binding("c", "console", "Console of the VM"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),  # textual would only say which key it takes
    ]

    def __init__(self, board: Board, *, ask: Callable[[Do], Coroutine[Any, Any, Any]]) -> None:
        """`ask` asks the service, from asyncio; it raises ClientError."""
        super().__init__()
        self._board = board
        self._ask = ask
        self._shown = (-1, -1)
        """Revision of the board, and second of the clock."""

    def compose(self) -> ComposeResult:
        yield Static(id="headline")
        yield Static(id="latencies")
        for name, columns in (("pools", rows.POOLS), ("vms", rows.VMS), ("leases", rows.LEASES)):
            table: DataTable[Text] = DataTable(id=name, cursor_type="row")
            table.border_title = name
            for column in columns:
                table.add_column(column, key=column)
            yield table
        events = Static(id="events")
        events.border_title = "events"
        yield events
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#vms").focus()
        self._repaint()
        self.set_interval(REPAINT_S, self._repaint)

    def _repaint(self) -> None:
        now = trio.current_time()
        wanted = (self._board.revision, int(now))  # ages grow when nothing happens, too
        if wanted == self._shown or len(self.screen_stack) > 1:
            return
        self._shown = wanted
        board = self._board
        headline = self.query_one("#headline", Static)
        headline.update(Text(rows.headline(board), style="red" if board.missing else ""))
        self.query_one("#latencies", Static).update(Text(rows.latency_line(board)))
        _fill(self._table("pools"), rows.pool_rows(board))
        _fill(self._table("vms"), rows.vm_rows(board, now=now))
        _fill(self._table("leases"), rows.lease_rows(board, now=now))
        latest = list(board.events)[-EVENTS_SHOWN:]
        self.query_one("#events", Static).update(Text("\n".join(latest) or "nothing has happened yet", no_wrap=True))

    def shows(self, revision: int) -> bool:
        """Whether all that the board had at that revision is on the screen."""
        return self._shown[0] >= revision

    def action_drain(self) -> None:
        profile = self._board.profile(_selected(self._table("pools")))
        if profile is not None:
            name, drained = profile.name, profile.drained
            self._do(lambda client: client.undrain(name) if drained else client.drain(name))

    def action_evict(self) -> None:
        if vm_id := _selected(self._table("vms")):
            self._do(lambda client: client.evict(vm_id))

    def action_console(self) -> None:
        vm_id = _selected(self._table("vms"))
        if self._table("leases").has_focus:
            lease_id = _selected(self._table("leases"))
            vm_id = next((lease.vm_id for lease in self._board.leases if lease.lease_id == lease_id), "")
        if vm_id:
            self._do(lambda client: client.console(vm_id), then=lambda text: self._show_console(vm_id, text))

    def _show_console(self, vm_id: str, text: str) -> None:
        self.push_screen(ConsoleScreen(vm_id, text))

    def _do(self, do: Do, *, then: Callable[[Any], None] = lambda _answer: None) -> None:
        """In the background; what is refused is shown for a while."""

        async def ask() -> None:
            try:
                answer = await self._ask(do)
            except ClientError as error:
                self.notify(visible(str(error)), severity="error", markup=False)
            else:
                then(answer)

        self.run_worker(ask(), exit_on_error=True)

    def _table(self, name: str) -> DataTable[Text]:
        return self.query_one(f"#{name}", DataTable)


def _selected(table: DataTable[Text]) -> str:
    """The key of the row with the cursor; empty if there are no rows."""
    if not table.row_count:
        return ""
    return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)


def _fill(table: DataTable[Text], wanted: list[rows.Row]) -> None:
    """Changes what is different, so that the cursor stays where it is."""
    keys = {row.key for row in wanted}
    known = {str(key.value) for key in table.rows}
    for key in known - keys:
        table.remove_row(key)
    columns = [str(key.value) for key in table.columns]
    for row in wanted:
        cells = [Text(cell) for cell in row.cells]
        if row.key not in known:
            table.add_row(*cells, key=row.key)
            continue
        for column, cell in zip(columns, cells, strict=True):
            if table.get_cell(row.key, column) != cell:
                table.update_cell(row.key, column, cell, update_width=True)


async def show(socket_path: Path) -> int:
    """Until its user has seen enough. Returns the exit code: not 0 if the view failed, whose traceback is shown."""
    board = Board()
    feed = Feed(socket_path=socket_path, board=board)
    async with open_loop() as loop, trio.open_nursery() as nursery:

        async def ask(do: Do) -> Any:
            return await loop.in_trio(feed.ask, do)

        app = TopApp(board, ask=ask)
        nursery.start_soon(feed.run)
        await loop.run(app.run_async)
        nursery.cancel_scope.cancel(reason="its user has left")
    return app.return_code or 0
