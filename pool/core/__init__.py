"""The coordinator and what is around it: what is asked of the pool, performed, delivered, watched, recovered."""
