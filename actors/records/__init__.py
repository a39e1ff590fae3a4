"""What a VM's record on disk says, in classes of its own: each version is a module, and only the latest is written.

They share no class with what the service has in memory, where a field may come and go: `v2` has the conversion, both
ways, `v1` the reader of the version before.
"""
