"""A VM's record on disk, in classes of its own: each version is a module, and only the latest is written.

It shares no class with the record in memory, so that fields there may come and go: `v3` converts both ways, `v2` reads
the previous version.
"""
