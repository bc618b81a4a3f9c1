"""How the checkpoints of papers' own code name their entries; one file per model."""
