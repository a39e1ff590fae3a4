"""The vocabulary: records and enums that all layers share. Attrs only, no I/O, no trio."""
