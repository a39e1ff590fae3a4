"""Kata's VM factory: template, direct, cache and client factories."""
