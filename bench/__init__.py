"""Benchmarks: `scripts/bench`, or `python -m bench`, in a checkout. No part of the wheel."""
