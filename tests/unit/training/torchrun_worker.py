"""Some runs of fine_tune, one after the other: torchrun torchrun_worker.py FOLDER '[{"name": …}, …]'.

Other wishes show how processes fail: '{"fail": "kill"}' joins them and lets the second one end.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from mtrec.config import Training, parse_scenario
from mtrec.errors import MtrecError, RunError
from mtrec.progress import listening
from mtrec.stages import fine_tune
from mtrec.training.joining import joined


def run(folder: Path, name: str, settings: dict[str, Any], resume: str | None = None) -> None:
    """Train with some settings over those of the folder's scenario; keep the checkpoint of the first epoch."""
    raw = json.loads((folder / "scenario.json").read_text())
    raw["training"] |= settings.get("training", {})
    raw["model"] |= settings.get("model", {})
    rank = int(os.environ.get("RANK", "0"))
    checkpoints, first = folder / name / "checkpoints", folder / name / "first"
    if resume and rank == 0:
        shutil.copytree(folder / resume / "first", checkpoints)

    def listen(progress: Any) -> None:
        if (checkpoints / "state.json").is_file() and not first.exists() and not resume:
            shutil.copytree(checkpoints, first)
        with (folder / name / "heard").open("a") as heard:
            heard.write(f"{progress.fraction}\n")

    def keep(tensors: dict[str, Any]) -> dict[str, Any]:
        found = whole(tensors)
        save_file({n: t.clone() for n, t in found.items()}, folder / name / f"rank{rank}.safetensors")
        return found

    whole, fine_tune.whole = fine_tune.whole, keep
    (folder / name).mkdir(exist_ok=True)
    with listening(listen):
        fine_tune.run(
            fine_tune.Inputs(
                dataset=folder / "dataset",
                checkpoints=checkpoints,
                code_revision="a-revision",
                tracking_uri=f"sqlite:///{folder}/mlflow.db",
            ),
            fine_tune.Outputs(model=folder / name / "model", losses=folder / name / "losses.jsonl"),
            parse_scenario(raw),
        )
    fine_tune.whole = whole


def fail(how: str) -> None:
    """Let the second of two processes end while the first one waits for it."""
    with joined(Training(device="cpu")) as processes:
        processes.agree("here", "presence")
        if processes.rank == 1 and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if processes.rank == 1 and how == "error":
            raise RunError("the disk of the second machine is full")
        processes.agree(processes.rank if how == "differ" else 0, "data")


if __name__ == "__main__":
    try:
        wishes = json.loads(sys.argv[2])
        for wish in wishes:
            if "fail" in wish:
                fail(wish["fail"])
            else:
                run(Path(sys.argv[1]), **wish)
    except MtrecError as error:
        print(f"mtrec: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
