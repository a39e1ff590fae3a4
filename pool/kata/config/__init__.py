"""Kata's configuration file, pure but for the reading of it."""
