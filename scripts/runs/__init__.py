"""Launching runs: what they need, in which order they start, and a first one."""
