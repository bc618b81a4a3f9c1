"""Training without an orchestrator: job, data, loop, checkpoints, evaluation, report."""
