"""Benchmarks: `vmpool bench`, from a checkout. No part of the wheel."""
