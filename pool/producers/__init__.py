"""The kinds of producers, one module each: cost class, settings and construction."""
