"""The devices of a machine, one kind a module: all that the rest of `vmm` knows of them is in `device`."""
