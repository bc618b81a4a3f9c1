"""Extraction without an orchestrator: job, plan, batches, one commit each."""
