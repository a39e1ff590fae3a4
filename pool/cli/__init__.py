"""The `vmpool` command."""
