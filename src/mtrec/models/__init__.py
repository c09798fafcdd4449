"""The shared encoder, user and item representations, sharing strategies and heads."""
