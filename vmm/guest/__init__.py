"""The guest: the agent inside it (`agent`) and the host's side of the agent (`client`, `qga`, `noop`)."""
