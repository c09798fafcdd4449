"""mtrec: several recommendation tasks learned together on one pretrained language model."""

import os

__version__ = "0.1.0"

# OpenMP's threads wait for each other by spinning, which on a shared machine takes the processor from the very
# thread that is waited for: beside a busy process a training step took four times as long. They give up sooner
# (benchmarked in docs/experiments.md). Read when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
