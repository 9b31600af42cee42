"""The tests. A package, so that one of the same name among the installed packages does not stand in for it."""
