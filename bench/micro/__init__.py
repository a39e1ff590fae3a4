"""Without QEMU: decisions, codecs, calls and actors, with 10 to 10,000 simulated VMs."""
