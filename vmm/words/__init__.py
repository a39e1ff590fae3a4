"""The vocabulary: records and enums that all floors speak. Attrs only, no I/O, no trio."""
