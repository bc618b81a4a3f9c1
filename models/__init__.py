"""Features to answers: one file per paper."""
