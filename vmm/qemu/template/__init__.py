"""Templates: a booted VM saved as a memory file and a device state, from which VMs are cloned copy-on-write."""
