"""Whoever acts and learns."""
