"""The wire, for client and service: generated messages, strict parsing, and asyncio as a guest of trio."""
