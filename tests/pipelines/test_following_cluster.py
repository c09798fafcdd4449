import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from mtrec.config import load_scenario
from pipelines.cluster_config import load_cluster
from pipelines.following_cluster import follow, names_of, show
from pipelines.kfp_server import Access, Away, Refused, RunView, Server, TaskView, connect
from pipelines.local import STEPS, WATCHING
from pipelines.placing import Placing
from pipelines.steps import Steps
from pipelines.submitting import Order, submit
from tests.kfp_stand_in import Frame, StandIn


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn("2.17").running() as server:
        yield server


@pytest.fixture
def server(stand_in: StandIn) -> Iterator[Server]:
    with connect(Access(host=stand_in.url)) as server:
        yield server


@pytest.fixture
def run(server: Server) -> str:
    return submit(Order(kind="training", scenario=load_scenario("ecommerce")), server).id


def frames(*names: str, end: str, last: str = "SUCCEEDED") -> list[Frame]:
    """A run whose tasks run one after another; the last one ends as said."""
    done: dict[str, str] = {}
    played = [Frame("PENDING")]
    for name in names:
        played.append(Frame("RUNNING", {**done, name: "RUNNING"}))
        done[name] = "SUCCEEDED"
    played.append(Frame(end, {**done, names[-1]: last}))
    return played


VIEW = RunView(
    id="r", name="", state="RUNNING", created=None, ended=None, error="", tasks=(), schedule="", parameters={}
)
TASKS = [name.replace("_", "-") for name in STEPS]


def watched(server: Server, run: str) -> tuple[RunView, Steps, str]:
    text = io.StringIO()
    view, steps = follow(server, run, Console(file=text, width=100), wait=lambda seconds: None)
    return view, steps, text.getvalue()


def test_a_run_is_followed_to_its_end(stand_in: StandIn, server: Server, run: str) -> None:
    stand_in.play = frames(*TASKS, "record-outcome", end="SUCCEEDED")
    view, steps, text = watched(server, run)
    assert view.state == "SUCCEEDED"
    assert {step.state for step in steps.steps.values()} == {"done"}
    assert "ingest_data      started" in text
    assert "register_model   done" in text


def test_a_gate_that_says_no_leaves_register_skipped(stand_in: StandIn, server: Server, run: str) -> None:
    stand_in.play = frames(*TASKS[:-1], end="SUCCEEDED")
    _, steps, _ = watched(server, run)
    assert steps.steps["gate_model"].state == "done"
    assert steps.steps["register_model"].state == "skipped"


def test_a_failed_run(stand_in: StandIn, server: Server, run: str) -> None:
    stand_in.play = frames(*TASKS[:2], end="FAILED", last="FAILED")
    view, steps, text = watched(server, run)
    assert view.state == "FAILED"
    assert steps.failed is not None
    assert steps.failed.name == "validate_data"
    assert "validate_data    failed" in text


def test_a_run_that_somebody_stops_ends_the_view(stand_in: StandIn, server: Server, run: str) -> None:
    stand_in.play = frames(*TASKS[:2], end="CANCELED", last="RUNNING")
    view, steps, _ = watched(server, run)
    assert view.state == "CANCELED"
    assert steps.steps["validate_data"].state == "stopped"


@pytest.mark.parametrize("asked", ["CANCELING", "CANCELED"])
def test_what_ends_with_a_stopped_run_is_told_once(asked: str, stand_in: StandIn, server: Server, run: str) -> None:
    begun = {"ingest-data": "FAILED", "validate-data": "RUNNING"}
    ended = begun | {"validate-data": "FAILED"}
    stand_in.play = [Frame("RUNNING", begun), Frame(asked, ended), Frame("CANCELED", ended)]
    _, steps, text = watched(server, run)
    told = [line.split()[:2] for line in text.splitlines()]
    assert told == [["ingest_data", "failed"], ["validate_data", "started"], ["validate_data", "stopped"]]
    assert steps.steps["register_model"].state == "waiting"


def test_a_server_that_comes_back_is_waited_for(stand_in: StandIn, server: Server, run: str) -> None:
    stand_in.play = frames(*TASKS, end="SUCCEEDED")
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        # 500: a status that the client does not try again by itself
        stand_in.trouble = (lambda request: 500) if 2 < len(waits) < 6 else (lambda request: None)

    text = io.StringIO()
    view, _ = follow(server, run, Console(file=text, width=300), wait=wait)
    assert view.state == "SUCCEEDED"
    assert text.getvalue().count("cannot answer now (500)") == 1


def test_a_server_that_stays_away_ends_it(stand_in: StandIn, server: Server, run: str) -> None:
    stand_in.play = frames(*TASKS, end="SUCCEEDED")
    asked: list[float] = []

    def wait(seconds: float) -> None:
        asked.append(seconds)
        stand_in.trouble = lambda request: 500

    look = f"cannot answer now .*; the run goes on, look at it with: mtrec runs show {run} --follow$"
    with pytest.raises(Away, match=look):
        follow(server, run, Console(file=io.StringIO()), wait=wait)
    assert 600 <= sum(asked) < 700


@pytest.mark.parametrize("renewed", [True, False])
def test_a_token_that_ran_out_may_be_renewed(stand_in: StandIn, server: Server, run: str, renewed: bool) -> None:
    stand_in.play = frames(*TASKS, end="SUCCEEDED")
    answers = iter([None, None, 401, None if renewed else 401])
    stand_in.trouble = lambda request: next(answers, None)
    if renewed:
        assert watched(server, run)[0].state == "SUCCEEDED"
    else:
        with pytest.raises(Refused, match="--token-file"):
            watched(server, run)


def test_the_steps_are_those_of_the_pipeline_in_the_order_in_which_they_can_run(
    stand_in: StandIn, server: Server, repository: Path
) -> None:
    cluster = load_cluster(repository / "k8s" / "overlays" / "dev" / "cluster.yaml")
    sharded = Placing.on(cluster.model_copy(update={"shards": 3}))
    scenario = load_scenario("ecommerce")
    started = submit(Order(kind="search", scenario=scenario, placed=sharded), server).id
    names = names_of(server.spec(server.run(started)))
    assert names == (
        "ingest_data",
        "validate_data",
        "shard_tables",
        "preprocess_shard",
        "join_shards",
        "search_settings",
        "report_search",
    )
    watching = submit(Order(kind="monitoring", scenario=scenario, parameters={"drop": "/d"}), server).id
    assert names_of(server.spec(server.run(watching))) == WATCHING
    stand_in.versions.clear()
    assert names_of(server.spec(server.run(watching))) == STEPS, "a version that was deleted"


def test_a_loop_runs_until_its_last_round_has_ended() -> None:
    now = datetime.now(UTC)
    rounds = [
        TaskView(name="preprocess-shard", state="RUNNING", started=now - timedelta(seconds=30)),
        TaskView(name="preprocess-shard", state="SUCCEEDED", started=now - timedelta(seconds=9), ended=now),
    ]
    steps = Steps(["preprocess_shard"])
    show(replace(VIEW, tasks=tuple(rounds)), steps)
    assert steps.steps["preprocess_shard"].state == "running"


def test_waits_grow_while_nothing_changes(stand_in: StandIn, server: Server, run: str) -> None:
    stand_in.play = [*[Frame("RUNNING", {"ingest-data": "RUNNING"})] * 12, Frame("SUCCEEDED")]
    waits: list[float] = []
    follow(server, run, Console(file=io.StringIO()), wait=waits.append)
    assert waits[0] == 2.0
    assert waits == sorted(waits)
    assert waits[-1] == 10.0


def test_times_are_the_servers_and_the_last_attempt_counts() -> None:
    now = datetime.now(UTC)
    first = TaskView(name="ingest-data", state="FAILED", started=now - timedelta(seconds=90), ended=now)
    second = TaskView(name="ingest-data", state="RUNNING", started=now - timedelta(seconds=30))
    others = (TaskView(name="executor(0)", state="FAILED", started=now), TaskView(name="root", state="RUNNING"))
    view = replace(VIEW, tasks=(second, first, *others))
    steps = Steps(STEPS)
    assert show(view, steps)
    step = steps.steps["ingest_data"]
    assert step.state == "running"
    assert 29 < step.elapsed(steps.clock()) < 40
    steps.changed = lambda step: pytest.fail("nothing has changed")
    assert not show(view, steps)
