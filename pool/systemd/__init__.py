"""vmpool as a unit of systemd: the files as they are packaged, and how they come to a host (`vmpool install-unit`)."""
