"""mtrec tune: what it prints and leaves, how it goes on, how it fails."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mtrec.config import load_scenario
from mtrec.progress import Progress
from mtrec.training.search import Ended
from pipelines import cli
from pipelines.tuning import Searched
from pipelines.tuning_view import View, print_search
from tests.unit.tiny_shop import DIALS, TASKS, save_bert, shop_scenario, shop_tables, words

Tune = Callable[..., "subprocess.Popen[str]"]
STEADY = Path(__file__).parent / "steady_code"
SPACE = {
    "training.lr": {"low": 0.0005, "high": 0.05, "log": True},
    "tasks.rating.weight": {"low": 0.1, "high": 3.0, "log": True},
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A scenario file of a tiny shop with a random encoder, which searches two settings."""
    items = shop_tables(DIALS)[0].items
    encoder = save_bert(
        tmp_path / "bert", words([*items["title"].drop_nulls(), *items["description"].drop_nulls()])
    )
    tasks = {name: TASKS[name] for name in ("rating", "category", "next_item")}
    scenario = shop_scenario(encoder, tasks=tasks, search={"space": SPACE, "pruner": "none"})
    path = tmp_path / "shop.yaml"
    path.write_text(json.dumps(scenario.as_dict()))
    return path


@pytest.fixture
def tune(tmp_path: Path) -> Tune:
    """Start the command in a process of its own, in a folder with a space in its name."""
    folder = tmp_path / "my shop"
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(STEADY), environment.get("PYTHONPATH")]))

    def start(*arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "tune", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hears_ctrl_c,
        )

    return start


def _hears_ctrl_c() -> None:
    """A process that was started in the background, as tests may be, hands down that it does not hear Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_a_search_is_stopped_and_killed_and_goes_on_and_ends_in_settings_to_paste(
    tune: Tune, shop: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "my shop"
    stopped = tune("--scenario", str(shop), "--trials", "40", "--study", "monday")
    _wait_for_trial(stopped, 1)
    stopped.send_signal(signal.SIGINT)
    output, error = stopped.communicate(timeout=120)
    assert stopped.returncode == 130, error
    again = re.escape(f"mtrec tune --scenario {shop} --trials 40 --study monday")
    told = "mtrec: stopped; ended trials are kept, the one that ran is queued again; go on with: "
    assert re.fullmatch(rf"{told}(\S+/)?{again}\n", error)
    killed = tune("--scenario", str(shop), "--trials", "40", "--study", "monday")
    _wait_for_trial(killed, 2)
    killed.kill()
    killed.wait()
    before = json.loads((folder / ".mtrec/search/monday/trials.json").read_text())
    ended = [trial for trial in before["trials"] if trial["state"] == "complete"]
    assert len(ended) >= 2
    last = tune("--scenario", str(shop), "--trials", str(len(ended) + 2), "--study", "monday")
    output, error = last.communicate(timeout=300)
    assert last.returncode == 0, error
    assert error == ""
    _check_output(output, ended=len(ended) + 2)
    after = json.loads((folder / ".mtrec/search/monday/trials.json").read_text())
    assert after["trials"][: len(before["trials"])][0] == before["trials"][0]
    assert sum(trial["state"] == "complete" for trial in after["trials"]) == len(ended) + 2
    states = {trial["state"] for trial in after["trials"]}
    assert states == {"complete", "failed"}, "nothing runs or waits"
    _check_command(output, after, shop)
    assert sorted(path.name for path in folder.iterdir()) == [".mtrec"]
    there = {path.name for path in (folder / ".mtrec/search/monday").iterdir()}
    assert there >= {
        "dataset",
        "validation.json",
        "data_docs",
        "quarantine",
        "trials.html",
        "trials.svg",
        "log.txt",
    }
    assert "work" not in there


def _wait_for_trial(process: "subprocess.Popen[str]", count: int) -> None:
    """Read the output until so many trials have ended, and a moment longer."""
    assert process.stdout is not None
    ends = 0
    while ends < count:
        line = process.stdout.readline()
        assert line, process.communicate()
        ends += bool(re.match(r"trial \d+ +complete", line))
    time.sleep(0.5)


def _check_output(output: str, ended: int) -> None:
    lines = output.splitlines()
    assert lines[0] == "Study monday in sqlite:///.mtrec/search.db"
    assert lines[1] == "data        done (made before)"
    assert re.match(r"trial \d+ +complete +\d\.\d{4} +[\d.]+ s", lines[2])
    assert f"{ended} complete; " in output
    assert "broken off" in output
    assert "the scenario's own settings" in output
    for where in (
        "trials.html",
        "trials.svg",
        "search.db",
        "mlflow ui --backend-store-uri sqlite:///.mtrec/mlflow.db",
    ):
        assert where in output


def _check_command(output: str, said: dict[str, object], shop: Path) -> None:
    """What was printed for pasting trains with the settings of the best trial."""
    best = said["best"]
    assert isinstance(best, dict)
    if best.get("reference"):
        assert "No trial was better than the scenario's own settings." in output
        return
    command = re.findall(r"^Train with the settings of trial \d+:\n(.+)", output, re.M | re.S)[0]
    arguments = shlex.split(command.replace("\\\n", " "))
    assert Path(arguments[0]).name == "mtrec"
    assert arguments[1:4] == ["run", "--scenario", str(shop)]
    settings = arguments[5::2]
    assert set(arguments[4::2]) == {"--set"}
    scenario = load_scenario(shop, settings)
    assert scenario.training.lr == best["point"]["training.lr"]
    assert scenario.tasks["rating"].weight == best["point"]["tasks.rating.weight"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--scenario", "nope"], 2, "--scenario nope: unknown; choose one of"),
        (["--data", "nowhere"], 2, "--data nowhere: no such file or folder"),
        (["--sampler", "best"], 2, "search.sampler: Input should be 'tpe', 'grid' or 'random' (got 'best')"),
        (["--pruner", "hard"], 2, "search.pruner: Input should be 'median', 'hyperband' or 'none' (got 'hard')"),
        (["--sampler", "grid"], 2, "training.lr: a grid needs 'choices', or 'low', 'high' and 'step'"),
        (["--scenario", "amazon"], 2, "scenario amazon: search.space is empty; name the settings to try"),
        (
            ["--set", "search.space.training.lrr={low: 1, high: 2}"],
            2,
            "training.lrr: training has no 'lrr' (known: ",
        ),
        (["--set", "search.space.training.lr={low: 2, high: 1}"], 2, "empty range: low 2 must be less than high 1"),
        (["--space", "nowhere.yaml"], 2, "--space nowhere.yaml: No such file or directory"),
        (["--space", "broken.yaml"], 2, "--space broken.yaml: not valid YAML"),
        (["--space", "list.yaml"], 2, "list.yaml: search.space: a mapping of keys is expected"),
        (["--space", "unknown.yaml"], 2, "search.space: training.nope: training has no 'nope'"),
        (["--study", "a/b"], 2, "--study a/b: letters, digits, '.', '_' and '-' only"),
        (["--storage", "mysql://host/db"], 2, "--storage mysql://host/db: write sqlite:///path or postgresql://"),
        (["--storage", "postgresql://u:secret@127.0.0.1:9/db"], 1, "study storage postgresql://127.0.0.1:9/db: "),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "list.yaml").write_text("[1]")
    (tmp_path / "unknown.yaml").write_text("training.nope: {low: 1, high: 2}")
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as caught:
        cli.main(["tune", *arguments])
    output = capsys.readouterr()
    assert caught.value.code == code
    assert output.err.startswith("mtrec: ")
    assert output.err.count("\n") == 1
    assert message in output.err
    assert "secret" not in output.err
    assert output.out == ""
    assert {path.name for path in tmp_path.iterdir()} == before, "nothing is made"


def test_the_view_tells_each_trial_in_a_line_and_which_is_the_best() -> None:
    output = io.StringIO()
    ends = [
        Ended(number=0, state="complete", value=1.0, point={}, seconds=61.04),
        Ended(number=1, state="pruned", value=0.8, point={}, seconds=9.0, why="worse than others after epoch 2"),
        Ended(number=2, state="complete", value=1.25, point={}, seconds=60.0),
        Ended(number=3, state="pruned", value=None, point={}, seconds=1.0, why="loss of rating is nan [0]"),
        Ended(number=14, state="complete", value=1.1, point={}, seconds=60.0),
    ]
    first = {"number": 0, "value": 1.0, "reference": True}
    with View(Console(file=output, width=40)) as view:
        view.opened("monday", f"sqlite:///{Path.cwd()}/search.db", ["training.lr: 0.5, tried from 0.01"])
        view.waiting()
        view.waiting()
        for end in ends:
            view.ended(end, first if end.number < 2 else {"number": 2, "value": 1.25})
    assert output.getvalue().splitlines() == [
        "Study monday in sqlite:///search.db",
        "outside the space, so trial 0 has the nearest value: training.lr: 0.5, tried from 0.01",
        "waiting for trial 0, the scenario's own settings, which another process trains",
        "trial 0     complete   1.0000    61.0 s",
        "trial 1     pruned     0.8000     9.0 s  worse than others after epoch 2",
        "trial 2     complete   1.2500    60.0 s  the best so far",
        "trial 3     pruned          –     1.0 s  loss of rating is nan [0]",
        "trial 14    complete   1.1000    60.0 s",
    ]


def test_the_bar_shows_a_message_as_it_is() -> None:
    output = io.StringIO()
    with View(Console(file=output, width=80, force_terminal=True)) as view:
        view.heard(Progress(stage="ingest", fraction=0.5, message="reading drops[/b]"))
        view.bars.refresh()
    assert "reading drops[/b]" in output.getvalue()


def test_the_table_at_the_end_has_the_best_trials_and_always_the_scenario_s_own(tmp_path: Path) -> None:
    same = {"state": "complete", "epochs": [1.0] * 5, "seconds": 59.6}
    values = [1.0, 1.1, 1.2, 1.3, 1.05, 1.15, 1.01]
    trials = [{**same, "number": n, "value": v, "skills": {"rating": v / 4}} for n, v in enumerate(values)]
    trials[0]["reference"] = True
    trials += [{"number": 7, "state": "failed"}, {"number": 8, "state": "pruned"}]
    command = ["mtrec", "run", "--set", "a=1"]
    summary = {"name": "monday[/x]", "trials": trials, "best": trials[3], "command": command}
    result = Searched(
        summary=summary,
        folder=tmp_path,
        page=tmp_path / "trials.html",
        picture=tmp_path / "trials.svg",
        storage="postgresql://db/studies",
        tracking_uri="http://mlflow:5000",
        seconds=61.0,
    )
    output = io.StringIO()
    print_search(result, Console(file=output, width=120, markup=False))
    said = output.getvalue()
    assert re.findall(r"│ +(\d) +(1\.\d{4}) +5 +60 s", said) == [
        ("3", "1.3000"),
        ("2", "1.2000"),
        ("5", "1.1500"),
        ("1", "1.1000"),
        ("4", "1.0500"),
        ("0", "1.0000"),
    ]
    assert re.search(r"rating +0\.2500 +0\.3250", said)
    assert "7 complete, 1 pruned; 1 broken off" in said
    assert "─ monday[/x] · 1 min 01 s ─" in said
    assert "monday[/x] in postgresql://db/studies" in said
    assert "open http://mlflow:5000" in said
    assert said.endswith("Train with the settings of trial 3:\nmtrec run \\\n  --set a=1\n")
