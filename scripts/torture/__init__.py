"""Runs that are killed, starved and damaged, against one that was left alone."""
