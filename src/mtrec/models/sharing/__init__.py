"""Sharing strategies: what the tasks of one place (item, user, pair) have in common above the encoder."""
