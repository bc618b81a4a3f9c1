"""Benchmarks: each runs both sides in one go and prints ratios, since machines drift."""
