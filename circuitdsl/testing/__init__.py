"""For tests, ours and users': hypothesis strategies and the like. Nothing else of the package imports from here."""
