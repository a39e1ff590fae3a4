"""With real VMs."""
