"""Runners: where the batches of an extraction run. All of them write the same store."""

from vlpipe.pipelines.extraction.runners.choice import open_runner
from vlpipe.pipelines.extraction.runners.runner import RunBatch, Runner, run_batches

__all__ = ["RunBatch", "Runner", "open_runner", "run_batches"]
