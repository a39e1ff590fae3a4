"""All pool decisions, pure: events in, effects out. No I/O, no trio, no clock except the `now` argument."""
