"""Checkpoints: read safely, kept in a folder, chosen for a run, converted from foreign layouts."""
