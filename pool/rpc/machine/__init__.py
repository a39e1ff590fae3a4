"""Calls that reach into a leased VM: commands, processes, files, ports, usage."""
