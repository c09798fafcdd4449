"""Thin Kubeflow components, one per stage."""
