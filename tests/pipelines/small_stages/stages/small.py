"""What the small stages share."""

import os
import signal
import sys
import time
from pathlib import Path

from mtrec.errors import DataError
from mtrec.progress import report


def behave(stage: str) -> None:
    """Do what SMALL_STAGES asks of this stage."""
    wishes = dict(item.split("=") for item in os.environ.get("SMALL_STAGES", "").split() if item)
    wish = wishes.get(stage)
    print(f"small stage {stage}: {wish}")
    if wish == "explain":
        raise DataError("data/items.csv: column 'title' is missing.\nMap it in shop.yaml")
    if wish == "crash":
        raise ZeroDivisionError("a bug")
    if wish == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if wish == "noise":
        sys.stderr.write("Calculating:  50%|████")
        report(stage, 0.5, "half of it")
        sys.stderr.write("\x1b[95mcoloured\x1b[0m\n")
    if wish == "sleep":
        marker = Path(os.environ["SMALL_STAGES_MARKER"])
        marker.write_text(str(os.getpid()))
        try:
            time.sleep(120)
        finally:
            marker.write_text("cleaned up")
