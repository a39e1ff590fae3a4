"""An MCP server that gives a model virtual machines: `vmpool mcp`. It needs the extra `mcp`.

A client starts it and speaks to it over stdin and stdout. Its VMs end with it, however it ends.
"""
