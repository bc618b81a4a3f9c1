"""Figures of benchmarks, as functions of predictions and answers; one file per family."""
