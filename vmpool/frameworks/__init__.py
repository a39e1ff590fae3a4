"""vmpool in frameworks of others. Each module here needs the extra of its name, and uses nothing but the SDK."""
