"""Benchmarks: `scripts/bench`, or `python -m bench`, in a checkout. Not part of the wheel."""
