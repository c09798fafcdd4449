"""Fine-tuning on nodes trains what one process trains, tells what made it fail, and leaves nothing behind."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mtrec.config import Scenario, parse_scenario
from mtrec.errors import ConfigError, DataError, InputError, RunError, Unavailable
from mtrec.progress import listening
from mtrec.stages import fine_tune, launching, preprocess
from mtrec.stages.execution import ERROR_MARK, read_failure, run_component
from mtrec.stages.launching import _Claim, _Ears, clean_up, launch
from mtrec.tracking.connection import connected
from mtrec.tracking.runs import PIPELINE_RUN
from mtrec.training.nodes import End, Lost, Place, run_label
from tests import kube_server, trainer
from tests.kube_server import KubeServer
from tests.trainer import NAMESPACE, jobs
from tests.unit.tiny_shop import DIALS, shop_scenario, shop_tables
from tests.unit.training.test_distributed import check_equal, without_dropout

RUN = "shop-20261123"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A dataset, and in `one` what one process trains."""
    folder = tmp_path_factory.mktemp("launching")
    scenario = without_dropout(shop_scenario(tiny_bert), folder)
    scenario = parse_scenario(scenario.as_dict() | {"training": {**scenario.as_dict()["training"], "epochs": 1}})
    (folder / "scenario.json").write_text(json.dumps(scenario.as_dict()))
    shop_tables(DIALS)[0].write(folder / "tables")
    preprocess.run(
        preprocess.Inputs(tables=folder / "tables"), preprocess.Outputs(dataset=folder / "dataset"), scenario
    )
    train(folder, "one", None)
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def scenario_of(folder: Path) -> Scenario:
    return parse_scenario(json.loads((folder / "scenario.json").read_text()))


def train(folder: Path, name: str, place: Place | None, **inputs: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"dataset": folder / "dataset", "code_revision": "a-revision", **inputs}
    return fine_tune.run(
        fine_tune.Inputs(trainer=place and place.as_text(), **given),
        fine_tune.Outputs(model=folder / name / "model", losses=folder / name / "losses.jsonl"),
        scenario_of(folder),
    )


def local(work: Path, **settings: Any) -> Place:
    return Place(runtime="local", work=work, deadline_seconds=120, **settings)


# The same training


@pytest.mark.slow
def test_two_processes_train_what_one_trains(folder: Path, tmp_path: Path, prepared_store: Path) -> None:
    uri = f"sqlite:///{shutil.copy(prepared_store, tmp_path / 'mlflow.db')}"
    told: list[Any] = []
    with listening(told.append):
        summary = train(
            folder,
            "two",
            local(tmp_path / "work", processes_per_node=2),
            checkpoints=tmp_path / "checkpoints",
            tracking_uri=uri,
            pipeline_run=RUN,
        )
    check_equal(folder, "one", "two")
    assert summary["epochs"] == 1
    assert json.loads((folder / "two/model/training.json").read_text())["steps"] == summary["steps"]
    assert (tmp_path / "checkpoints/state.json").is_file()
    assert {progress.stage for progress in told} == {"fine_tune"}
    fractions = [progress.fraction for progress in told if progress.fraction is not None]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert list((tmp_path / "work").iterdir()) == [], "what went to the nodes is removed"
    with connected(uri) as client:
        experiment = client.get_experiment_by_name(scenario_of(folder).name)
        runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags.get(PIPELINE_RUN) == RUN]
    (child,) = [run for run in runs if run is not parent]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.status == "FINISHED"
    assert "train/loss" in child.data.metrics


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    with kube_server.cluster(tmp_path, monkeypatch, namespace="mtrec") as server:
        trainer.install(server)
        yield server


@pytest.mark.slow
def test_two_nodes_of_a_trainjob_train_what_one_process_trains(
    folder: Path, tmp_path: Path, server: KubeServer
) -> None:
    kubelet = trainer.Kubelet(server)
    train(folder, "nodes", Place(num_nodes=2, work=tmp_path / "work"))
    check_equal(folder, "one", "nodes")
    assert kubelet.job["spec"]["trainer"]["numNodes"] == 2
    assert jobs(server) == []
    assert list((tmp_path / "work").iterdir()) == []


def test_a_place_for_one_process_is_this_one(folder: Path, tmp_path: Path) -> None:
    train(folder, "here", Place(gpus_per_node=1, work=tmp_path / "work"))
    check_equal(folder, "one", "here")
    assert not (tmp_path / "work").exists()


# Failures


def test_what_fails_there_fails_here(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "dataset"
    shutil.copytree(folder / "dataset", broken)
    (broken / "items.parquet").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        run_component(
            "fine_tune",
            inputs={"dataset": broken, "trainer": local(tmp_path / "work", processes_per_node=2).as_text()},
            outputs={"model": tmp_path / "model", "losses": tmp_path / "losses.jsonl"},
            scenario=(folder / "scenario.json").read_text(),
        )
    assert ended.value.code == 2
    said = capfd.readouterr().err
    (failure,) = filter(None, map(read_failure, said.splitlines()))
    assert "items.parquet" in failure.message
    assert failure.expected
    assert "node 0: Traceback" in said, "the nodes' log is kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "work"]
    assert list((tmp_path / "work").iterdir()) == []


def marked(**changes: Any) -> str:
    told = {"message": "column 'a' is missing", "exit_code": 1, "expected": True, "traceback": "Traceback …"}
    return ERROR_MARK + json.dumps(told | changes)


OOM = End(complete=False, reason="node 1 ran out of memory", lost=True)
FAILED = End(complete=False, reason="JobSetFailed: a job failed")
LOST = "training: another process was lost, killed or out of memory"


@pytest.mark.parametrize(
    ("lines", "end", "kind", "message"),
    [
        ([marked()], FAILED, RunError, "column 'a' is missing"),
        ([marked(exit_code=2)], FAILED, InputError, "column 'a' is missing"),
        ([marked(), marked(message="later")], FAILED, RunError, "column 'a' is missing"),
        ([marked(message=LOST)], OOM, Lost, f"{LOST}; node 1 ran out of memory"),
        ([marked(message=LOST)], FAILED, Lost, LOST),
        (["noise"], OOM, Lost, "fine_tune: the nodes failed: node 1 ran out of memory"),
        (["mtrec: no such scenario file"], FAILED, Lost, "no such scenario file; JobSetFailed: a job failed"),
        ([marked(message="MLflow: no answer", passing=True)], FAILED, Unavailable, "MLflow: no answer"),
        ([marked(message="GPU lost", expected=False, passing=True)], FAILED, Unavailable, "GPU lost"),
        ([marked(message="TypeError: None", expected=False)], FAILED, RuntimeError, "TypeError: None"),
    ],
)
def test_what_made_the_nodes_fail(lines: list[str], end: End, kind: type[Exception], message: str) -> None:
    ears = _Ears()
    for line in lines:
        ears.hear(0, line)
    with pytest.raises(kind, match=re.escape(message)) as error:
        ears.tell(end)
    assert type(error.value) is kind
    if kind is RuntimeError:
        assert "Traceback …" in str(error.value.__cause__)


def test_what_is_no_dataset_starts_nothing(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="no dataset of the stage preprocess"):
        train(folder, "none", Place(num_nodes=2, work=tmp_path / "work"), dataset=tmp_path)
    assert not list((tmp_path / "work").glob("*"))


def test_a_wrong_place_is_told_before_anything_else(folder: Path) -> None:
    given = fine_tune.Inputs(dataset=folder / "none", trainer='{"num_nodes": 2}')
    with pytest.raises(ConfigError, match="trainer: work"):
        fine_tune.run(given, fine_tune.Outputs(model=folder / "m", losses=folder / "l"), scenario_of(folder))


# Nodes that are only played


def done(server: KubeServer, writes: bool = True) -> None:
    """The next TrainJob ends well at once, having written what the nodes write."""

    def act() -> None:
        (name,) = jobs(server)
        arguments = server.objects["trainjobs", NAMESPACE, name]["spec"]["trainer"]["args"]
        work = Path(arguments[arguments.index("--summary") + 1]).parent
        if writes:
            (work / "model").mkdir()
            (work / "model/config.json").write_text("{}")
            (work / "losses.jsonl").write_text("{}\n")
            (work / "summary.json").write_text('{"epochs": 3}')
        trainer.end_job(server, name, "Complete")

    server.before("POST", "/trainjobs", lambda: server.before("GET", "/trainjobs/", act))


def launched(folder: Path, to: Path) -> dict[str, Any]:
    return launch(
        Place(num_nodes=2, work=to / "work"),
        fine_tune.Inputs(dataset=folder / "dataset", pipeline_run=RUN),
        fine_tune.Outputs(model=to / "model", losses=to / "losses.jsonl"),
        scenario_of(folder),
        "a-key",
    )


def test_the_nodes_are_told_all_but_their_place(folder: Path, tmp_path: Path, server: KubeServer) -> None:
    done(server)
    assert launched(folder, tmp_path) == {"epochs": 3}
    assert (tmp_path / "losses.jsonl").read_text() == "{}\n"
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"]
    (request,) = [request for request in server.seen if request.method == "POST"]
    arguments = request.body["spec"]["trainer"]["args"]
    work = tmp_path / "work" / run_label(RUN)
    assert all(Path(text.rpartition("=")[2]).is_relative_to(work) for text in arguments if "/" in text)
    given = [text.partition("=")[0] for option, text in pairwise(arguments) if option == "--input"]
    assert given == ["dataset", "pipeline_run"]
    assert "env" not in request.body["spec"]["trainer"]


def test_the_nodes_log_to_the_run_that_the_workflow_gave_this_step(
    folder: Path, tmp_path: Path, server: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    done(server)
    launched(folder, tmp_path)
    (request,) = [request for request in server.seen if request.method == "POST"]
    env = {variable["name"]: variable["value"] for variable in request.body["spec"]["trainer"]["env"]}
    assert env == {"MLFLOW_RUN_ID": "abc", "MLFLOW_EXPERIMENT_ID": "7"}
    assert "secret" not in json.dumps(request.body)


def test_a_folder_that_the_nodes_do_not_share_is_one_line(
    folder: Path, tmp_path: Path, server: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "_SEEN_AFTER", 0.1)
    done(server, writes=False)
    with pytest.raises(
        RunError, match=r"wrote nothing to .*work must be on a volume that they and this step mount"
    ):
        launched(folder, tmp_path)


CHILD = f"""
import json, sys
from dataclasses import make_dataclass
from pathlib import Path
from mtrec.config import parse_scenario
from mtrec.stages.launching import launch
from mtrec.training.nodes import Place

folder, to = map(Path, sys.argv[1:])
inputs = make_dataclass("Inputs", ["dataset", "pipeline_run"])(folder / "dataset", "{RUN}")
outputs = make_dataclass("Outputs", ["model", "losses"])(to / "model", to / "losses.jsonl")
scenario = parse_scenario(json.loads((folder / "scenario.json").read_text()))
launch(Place(num_nodes=2, work=to / "work"), inputs, outputs, scenario, "a-key")
"""
"""`launched` in a process of its own, without torch, which takes seconds to load."""


def start_and_signal(folder: Path, to: Path, server: KubeServer, number: signal.Signals) -> int:
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(folder), str(to)])
    while not jobs(server):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    return process.wait(timeout=30)


def test_a_step_that_is_ended_leaves_nothing(folder: Path, tmp_path: Path, server: KubeServer) -> None:
    assert start_and_signal(folder, tmp_path, server, signal.SIGTERM) == 143
    assert jobs(server) == []
    assert list((tmp_path / "work").iterdir()) == []


def test_what_a_killed_step_began_is_finished_by_its_next_attempt(
    folder: Path, tmp_path: Path, server: KubeServer
) -> None:
    assert start_and_signal(folder, tmp_path, server, signal.SIGKILL) == -signal.SIGKILL
    (dataset,) = (tmp_path / "work").glob("*/*/dataset")
    began = dataset.stat()
    copied = []
    server.before("GET", "/trainjobs/", lambda: copied.append(dataset.stat().st_ino == began.st_ino))
    done(server)
    server.before("GET", "/trainjobs/", server._first.pop()[2])  # there is no POST to wait for
    assert launched(folder, tmp_path) == {"epochs": 3}
    assert copied == [True]
    assert len([request for request in server.seen if request.method == "POST"]) == 1


@pytest.mark.parametrize("ends", ["Failed", "deleted"])
def test_an_attempt_that_comes_back_leaves_what_the_next_one_has_taken_over(
    ends: str, folder: Path, tmp_path: Path, server: KubeServer
) -> None:
    """A machine that was given up came back: it must not end what goes on without it."""

    def taken_over() -> None:
        (name,) = jobs(server)
        (dataset,) = (tmp_path / "work").glob("*/*/dataset")
        _Claim(dataset.parent)
        if ends == "Failed":
            trainer.end_job(server, name, "Failed")
        else:  # and one of its own made, of the same name
            server.objects["trainjobs", NAMESPACE, name]["metadata"]["deletionTimestamp"] = "2026-11-23T00:00:00Z"

    server.before("POST", "/trainjobs", lambda: server.before("GET", "/trainjobs/", taken_over))
    with pytest.raises(Lost, match="another attempt at this step has taken its nodes over"):
        launched(folder, tmp_path)
    assert len(jobs(server)) == 1
    assert len(list((tmp_path / "work").glob("*/*/dataset"))) == 1
    assert not (tmp_path / "model").exists()


def test_an_attempt_that_slept_while_it_copied_starts_nothing(
    folder: Path, tmp_path: Path, server: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring = launching._bring

    def slow(inputs: Any, scenario: Scenario, to: Path) -> None:
        bring(inputs, scenario, to)
        _Claim(to)  # the next attempt has begun

    monkeypatch.setattr(launching, "_bring", slow)
    with pytest.raises(Lost, match="another attempt at this step has taken its nodes over"):
        launched(folder, tmp_path)
    assert {request.method for request in server.seen} <= {"GET"}
    assert len(list((tmp_path / "work").glob("*/*/dataset"))) == 1


def test_where_the_volume_does_not_tell_whose_it_is_nothing_is_removed_and_the_reason_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text

    def stale(path: Path, *given: Any, **named: Any) -> str:
        if path.name == "attempt":
            raise OSError(116, "Stale file handle")
        return read(path, *given, **named)

    def refused(*given: Any, **named: Any) -> None:
        monkeypatch.setattr(Path, "read_text", stale)
        raise ConfigError("trainer.runtime: there is none")

    monkeypatch.setattr(launching, "follow", refused)
    with pytest.raises(ConfigError, match="there is none"):
        launched(folder, tmp_path)
    assert len(list((tmp_path / "work").glob("*/*/dataset"))) == 1


def test_what_a_killed_step_has_left_is_removed_by_its_run(tmp_path: Path, server: KubeServer) -> None:
    server.add("trainjobs", "left", NAMESPACE, metadata={"labels": {"mtrec/pipeline-run": run_label(RUN)}})
    place = Place(num_nodes=2, work=tmp_path / "work")
    left = place.work / run_label(RUN) / "some" / "dataset"
    left.mkdir(parents=True)
    assert clean_up(place, "another run") == []
    assert left.is_dir()
    assert clean_up(place, RUN) == ["left"]
    assert clean_up(place, RUN) == [], "nothing is left"
    assert list(place.work.iterdir()) == []
