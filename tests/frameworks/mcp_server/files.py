"""A model's work with files, the same for simulated and real guests."""

from __future__ import annotations

import base64
from typing import Final

from tests.frameworks.mcp_server.client import Model

GREETING: Final = "Grüß Gott\n!\n"
"""In /srv/app/greeting.txt afterwards."""


async def work_with_files(there: Model) -> None:
    written = await there.call("write_file", path="/srv/app/greeting.txt", content="Grüß Gott\n")
    assert written == {"path": "/srv/app/greeting.txt", "bytes": 12}
    await there.call("write_file", path="/srv/app/greeting.txt", content="!\n", append=True)
    read = await there.call("read_file", path="/srv/app/greeting.txt", length=3)
    assert (read["content"], read["length"], read["end_of_file"]) == ("Gr", 2, False)
    read = await there.call("read_file", path="/srv/app/greeting.txt", offset=2)
    assert (read["content"], read["end_of_file"]) == ("üß Gott\n!\n", True)
    await there.call("write_file", path="/srv/app/x", content=base64.b64encode(b"\xff\0").decode(), encoding="base64")
    assert "read it with encoding base64" in await there.refused("read_file", path="/srv/app/x")
    read = await there.call("read_file", path="/srv/app/x", encoding="base64")
    assert base64.b64decode(read["content"]) == b"\xff\0"
    listing = await there.call("list_files", path="/srv")
    assert [(entry["path"], entry["kind"]) for entry in listing["entries"]] == [("/srv/app", "directory")]
    listing = await there.call("list_files", path="/srv", depth=2)
    assert [entry["path"] for entry in listing["entries"]] == ["/srv/app", "/srv/app/greeting.txt", "/srv/app/x"]
    assert "No such file" in await there.refused("read_file", path="/srv/none")
    assert "absolute" in await there.refused("read_file", path="srv/none")
