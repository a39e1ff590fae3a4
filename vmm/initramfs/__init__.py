"""Builds the boot image: Debian's kernel, and an initramfs with busybox, Python and the agent."""
