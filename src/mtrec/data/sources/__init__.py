"""Readers that turn any input into the contract tables."""
