"""vmpool as a systemd unit: the packaged files, and their installation (`vmpool install-unit`)."""
