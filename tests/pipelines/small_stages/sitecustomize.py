"""Puts the small stages beside this file before the real ones, in every process with this folder on PYTHONPATH.

They follow the seam of mtrec.stages and do almost nothing, so that a test of the runner takes seconds. What a
stage does beyond that is asked for by SMALL_STAGES, for example `fine_tune=die`. The code keeps one revision, so
that somebody may edit it during the tests.
"""

from pathlib import Path

import mtrec.lineage
import mtrec.stages

mtrec.stages.__path__.insert(0, str(Path(__file__).resolve().parent / "stages"))
mtrec.lineage.code_revision = lambda: "a-revision"
