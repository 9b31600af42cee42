"""How fast an update is."""
