"""Puts the layers together: service, takeover, diagnosis, and what QEMU is started in. Decides nothing."""
