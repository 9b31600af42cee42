"""The agents: what acts and learns."""
