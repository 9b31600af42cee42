"""A row per finished run, with its source."""
