"""Metrics, slices, comparison with the champion, gate and report."""
