"""What a service lets others see of it: logs and traces, and text of others made fit to be shown."""
