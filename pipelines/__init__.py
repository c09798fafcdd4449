"""Pipelines as wiring, and the mtrec command."""
