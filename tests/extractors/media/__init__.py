"""A package, so that pytest has a scope for what the modules of this folder share."""
