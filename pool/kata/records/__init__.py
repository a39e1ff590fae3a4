"""Kata's records and their JSON; pure."""
