"""From media to the input of a network: stacks, windows, steps, normalisation."""
