"""One file for each family of layouts: it declares `LAYOUTS`, and nothing else needs to know."""
