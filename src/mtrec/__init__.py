"""mtrec: several recommendation tasks learned together on one pretrained language model."""

import os

__version__ = "0.1.0"

# OpenMP's threads wait for each other by spinning, which on a shared machine takes the processor from the very
# thread that is waited for. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
