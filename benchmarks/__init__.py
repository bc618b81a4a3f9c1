"""Benchmarks: each runs both sides in one go and prints ratios, since machines drift."""

from vlpipe.pipelines.settings import apply_torch_settings

# As the command does: before torch is imported, and for both sides alike.
apply_torch_settings()
