"""What a service has of its host: endpoint, directories, descriptors, time, memory, systemd's notifications."""
