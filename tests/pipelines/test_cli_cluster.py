import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines import following_cluster
from pipelines.cli import main
from pipelines.reference import commands
from tests.kfp_stand_in import Frame, StandIn

TASKS = [name.replace("_", "-") for name in following_cluster.STEPS]
DONE = dict.fromkeys(TASKS, "SUCCEEDED")

Mtrec = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr(following_cluster, "_FIRST_S", 0.01)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "not/there")
    with StandIn("2.14").running() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        yield server


@pytest.fixture
def mtrec(capsys: pytest.CaptureFixture[str]) -> Mtrec:
    """The command in this process: exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def test_submit_and_show(stand_in: StandIn, mtrec: Mtrec) -> None:
    code, out, _ = mtrec("submit", "training", "--scenario", "ecommerce", "--data", "dvc:abcd")
    (run,) = stand_in.runs
    assert code == 0
    assert "mtrec-training version v" in out
    assert f"{stand_in.url}/#/runs/details/{run}" in out
    assert f"mtrec runs show {run} --follow" in out
    stand_in.play = [Frame("RUNNING", {"ingest-data": "SUCCEEDED", "validate-data": "RUNNING"})]
    code, out, _ = mtrec("runs", "show", run)
    assert code == 0
    assert "ingest_data        done" in out
    assert "validate_data      running" in out


def test_many_users_are_told_apart_by_the_cluster_file(mtrec: Mtrec, repository: Path) -> None:
    cluster = str(repository / "k8s" / "cluster" / "cluster.yaml")
    with StandIn("2.17", multi_user=True).running() as server:
        assert mtrec("submit", "training", "--host", server.url)[0] == 2
        assert mtrec("submit", "training", "--host", server.url, "--cluster", cluster)[0] == 0
        daily = ("--cron", "0 3 * * *", "--host", server.url, "--cluster", cluster)
        assert mtrec("schedule", "create", "training", *daily)[0] == 0
        assert [one["namespace"] for one in server.experiments.values()] == ["mtrec"]


def test_submit_and_follow_to_a_registered_model(stand_in: StandIn, mtrec: Mtrec) -> None:
    stand_in.play = [Frame("RUNNING", {"ingest-data": "RUNNING"}), Frame("SUCCEEDED", DONE)]
    code, out, _ = mtrec("submit", "training", "--follow")
    assert (code, out.splitlines()[-1]) == (0, "registered")


def test_a_gate_that_refuses_is_exit_code_3(stand_in: StandIn, mtrec: Mtrec) -> None:
    stand_in.play = [Frame("SUCCEEDED", dict.fromkeys(TASKS[:-1], "SUCCEEDED"))]
    code, _, err = mtrec("submit", "training", "--follow")
    assert code == 3
    assert err.startswith("mtrec: the gate refused the candidate: see gate-model's report in http")


def test_monitoring_that_finds_no_reason_is_exit_code_0(stand_in: StandIn, mtrec: Mtrec) -> None:
    stand_in.play = [Frame("SUCCEEDED", dict.fromkeys(("monitor-data", "decide-retraining"), "SUCCEEDED"))]
    code, out, _ = mtrec("submit", "monitoring", "--data", "/mtrec/drops", "--follow")
    assert (code, out.splitlines()[-1]) == (0, "nothing was trained")
    assert "register_model    skipped" in out


def test_a_failed_run_is_exit_code_1_with_its_reason(stand_in: StandIn, mtrec: Mtrec) -> None:
    stand_in.play = [Frame("FAILED", {"ingest-data": "FAILED"}, error="no space [left]")]
    code, _, err = mtrec("submit", "training", "--follow")
    assert (code, err.splitlines()[-1]) == (1, "mtrec: ingest_data failed: no space [left] (from the server)")
    stand_in.play = [Frame("FAILED", {"ingest-data": "FAILED"})]
    stand_in.runs.clear()
    code, _, err = mtrec("submit", "training", "--follow")
    assert code == 1
    assert "ingest_data failed; the server does not tell why, and its pods cannot be read: ConfigException" in err
    assert "; see http" in err


def test_steps_after_a_failed_one_are_not_run(stand_in: StandIn, mtrec: Mtrec) -> None:
    mtrec("submit", "training")
    (run,) = stand_in.runs
    stand_in.play = [Frame("FAILED", {"ingest-data": "FAILED"}, error="no space")]
    out = mtrec("runs", "show", run)[1]
    assert "validate_data      not run\n" in out
    assert "waiting" not in out


def test_a_stopped_run_is_exit_code_1(stand_in: StandIn, mtrec: Mtrec) -> None:
    stand_in.play = [Frame("CANCELED", {"ingest-data": "CANCELED"})]
    code, _, err = mtrec("submit", "training", "--follow")
    assert code == 1
    assert "was stopped" in err


def test_runs_list_and_stop(stand_in: StandIn, mtrec: Mtrec) -> None:
    assert "No run is there yet" in mtrec("runs", "list")[1]
    mtrec("submit", "training")
    (run,) = stand_in.runs
    stand_in.runs[run]["display_name"] = "a [bold]name"
    listed = mtrec("runs", "list")[1]
    assert "a [bold]name" in listed
    assert all(line == line.rstrip() for line in listed.splitlines())
    code, out, _ = mtrec("runs", "stop", run)
    asked, mlflow = out.splitlines()
    assert (code, asked) == (0, f"run {run} is asked to stop")
    assert mlflow.startswith("MLFLOW_TRACKING_URI is not set: its run in MLflow stays open")
    code, _, err = mtrec("runs", "stop", run)
    assert (code, err) == (2, f"mtrec: run {run} has ended already: canceled\n")
    assert mtrec("runs", "show", "nobody")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("submit", "serving"), "choose one of training, monitoring"),
        (("submit", "monitoring"), "monitoring needs --data"),
        (("submit", "training", "--scenario", "nothing"), "nothing"),
        (("submit", "training", "--gpus", "2"), "--gpus 2: without --cluster training takes one; give a cluster"),
        (("compile", "--gpus", "2"), "with storage and steps.fine_tune_model.gpus: 2"),
        (("submit", "training", "--image", "my image"), "--image 'my image': give an image's name"),
        (("submit", "training", "--service-account", "Me_"), "--service-account 'Me_': give the name of a service"),
        (
            ("submit", "training", "--data", "dvc:"),
            "--data 'dvc:': give an absolute path as the pods see it, or dvc:",
        ),
        (("submit", "training", "--data", "dvc:VERSION"), "of which 4 hexadecimal digits are enough"),
        (("submit", "search", "--data", "dvc:abc"), "of which 4 hexadecimal digits are enough"),
        (("submit", "training", "--data", "dvc:abcd.dir"), "of which 4 hexadecimal digits are enough"),
        (("submit", "training", "--data", "drops"), "--data 'drops': give an absolute path as the pods see it"),
        (
            ("submit", "monitoring", "--data", "dvc:abcd"),
            "--data 'dvc:abcd': give an absolute path as the pods see it",
        ),
        (("submit", "training", "--dvc-root", "dvc"), "--dvc-root 'dvc': give an absolute path"),
        (("submit", "training", "--checkpoints", "./c"), "--checkpoints './c': give an absolute path"),
        (("submit", "training", "--text-cache", "~/texts"), "--text-cache '~/texts': give an absolute path"),
        (("submit", "training", "--tracking-uri", "foo bar"), "--tracking-uri 'foo bar': give a URI, as http://"),
        (
            ("submit", "training", "--pipeline-root", "foo"),
            "--pipeline-root 'foo': give a URI, as s3://bucket/path",
        ),
        (("submit", "training", "--namespace", "Bad NS"), "--namespace 'Bad NS': give the name of a namespace"),
        (("runs", "list", "--installed-in", "Bad"), "--installed-in 'Bad': give the name of a namespace"),
        (("submit", "training", "--experiment", "a\nb"), r"--experiment 'a\nb': give a name of one line"),
        (("submit", "training", "--ui", "not url"), "--ui 'not url': give a URL"),
        (
            ("submit", "search", "--checkpoints", "/x"),
            "--checkpoints is of training and monitoring: a search keeps",
        ),
        (("runs", "show", ""), "'RUN': it is empty"),
        (("schedule", "delete", " "), "'SCHEDULE': it is empty"),
        (("runs", "list", "--token-file", "not/there"), "--token-file not/there"),
    ],
)
def test_wrong_input_is_exit_code_2(
    arguments: tuple[str, ...], part: str, monkeypatch: pytest.MonkeyPatch, mtrec: Mtrec
) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:1")
    code, _, err = mtrec(*arguments)
    assert code == 2
    assert part in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("data", ["/mtrec/my drops", "dvc:0123", f"dvc:{'ab' * 16}.dir"])
def test_what_pods_can_take_is_sent_as_it_is(data: str, stand_in: StandIn, mtrec: Mtrec) -> None:
    given = {"data": data, "checkpoints": "/c", "tracking_uri": "sqlite:////m/mlflow.db"}
    options = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    code, out, err = mtrec("submit", "training", *options, "--experiment", "größer [2]", "--ui", "pages:80/x")
    assert code == 0, err
    (run,) = stand_in.runs.values()
    assert given.items() <= run["runtime_config"]["parameters"].items()
    assert f"https://pages:80/x/#/runs/details/{run['run_id']}" in out.splitlines()


def test_the_commands_in_the_documentation_exist(repository: Path) -> None:
    known = {name: {opt for one in command.params for opt in one.opts} for name, command in commands()}
    lines = re.findall(r"^mtrec .*", (repository / "docs/cluster.md").read_text(), flags=re.MULTILINE)
    assert len(lines) > 5
    for line in lines:
        name = max((name for name in known if line.startswith(name)), key=len)
        assert {word for word in line.split() if word.startswith("--")} <= known[name], line


def test_ctrl_c_leaves_the_run_running(tmp_path: Path) -> None:
    with StandIn().running() as stand_in:
        stand_in.play = [Frame("RUNNING", {"ingest-data": "RUNNING"})]
        command = [sys.executable, "-m", "pipelines.cli", "submit", "training", "--follow", "--host", stand_in.url]
        child = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have it ignored
        )
        while not any(request.path.endswith("/runs/run-4") for request in stand_in.requests):
            assert child.poll() is None, child.communicate()
            time.sleep(0.05)
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=20)
        (run,) = stand_in.runs
        assert child.returncode == 130
        assert f"mtrec: stopped following; the run goes on, see mtrec runs show {run} --follow" in err
        assert stand_in.runs[run]["state"] == "RUNNING"
