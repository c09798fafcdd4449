"""Tables and their contract, sources, validation, cleaning, splits and text."""
