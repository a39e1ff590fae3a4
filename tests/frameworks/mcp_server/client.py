"""MCP's own client, and `vmpool mcp` on the other end of its pipes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult, TextContent


@attrs.frozen
class Model:
    """Calls tools, and reads what they return."""

    client: Client

    async def call(self, tool: str, /, **arguments: Any) -> Any:
        """The structured result of a call that succeeds."""
        result = await self.result(tool, **arguments)
        assert not result.is_error, text_of(result)
        return result.structured_content

    async def refused(self, tool: str, /, **arguments: Any) -> str:
        """What the model reads of a call that fails."""
        result = await self.result(tool, **arguments)
        assert result.is_error, result
        return text_of(result)

    async def result(self, tool: str, /, **arguments: Any) -> CallToolResult:
        result = await self.client.call_tool(tool, arguments)
        assert isinstance(result, CallToolResult)
        return result


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return str(content.text)


def server(*options: str, environment: dict[str, str] | None = None) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "pool.cli.main", "mcp", *options],
        env={"PYTHONPATH": os.environ.get("PYTHONPATH", ""), **(environment or {})},
        cwd=Path(__file__).parents[3],
    )


@contextlib.asynccontextmanager
async def model(socket_path: Path | str, *options: str) -> AsyncIterator[Model]:
    async with Client(server("--socket", str(socket_path), *options)) as client:
        yield Model(client)
