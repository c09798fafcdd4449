"""The container images that components run in."""

from mtrec import __version__

IMAGE = f"mtrec/python:{__version__}"
"""Image of every component unless another is given when the pipeline is compiled.

The name holds the word python because kfp's local runner warns about any other.
"""

TRAINER_IMAGE = f"mtrec/python-cuda:{__version__}"
"""The same with CUDA, for training on GPUs."""
