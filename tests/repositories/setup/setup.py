"""A package, as far as repo2docker looks."""
