"""What new interactions look like beside those that the champion learned from, and whether to retrain."""
