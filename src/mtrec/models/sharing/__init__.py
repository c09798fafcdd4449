"""Sharing strategies: what the tasks of one place (item, user, pair) have in common above the encoder.

Every strategy maps inputs (…, I) to one output (…, H) per task.
"""
