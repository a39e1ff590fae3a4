"""The devices of a machine, one kind a module; `device` is their interface to the rest of `vmm`."""
