"""The joint loss."""
