"""mtrec: several recommendation tasks learned together on one pretrained language model."""

__version__ = "0.1.0"
