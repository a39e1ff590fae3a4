"""What the operator sets: TOML to attrs, who may call, and how much."""
