"""A service's resources on its host: endpoint, directories, descriptors, time, memory, systemd's notifications."""
