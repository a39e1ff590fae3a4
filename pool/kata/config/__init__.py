"""Kata's configuration file; pure, apart from reading the file."""
