"""The wire, for both ends: generated messages, their strict reading, and asyncio as a guest of trio."""
