import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mtrec.config import load_scenario
from mtrec.errors import ConfigError, InputError
from pipelines import scenario_text
from pipelines.cluster_config import Cluster, load_cluster
from pipelines.kfp_server import Access, Server, connect
from pipelines.placing import Placing
from pipelines.submitting import Order, prepare, submit
from tests.kfp_stand_in import StandIn


@pytest.fixture(params=["2.14", "2.17"])
def stand_in(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    with StandIn(request.param).running() as server:
        yield server


@pytest.fixture
def server(stand_in: StandIn) -> Iterator[Server]:
    with connect(Access(host=stand_in.url)) as server:
        yield server


def order(**changed: object) -> Order:
    return Order(**{"kind": "training", "scenario": load_scenario("ecommerce"), **changed})  # type: ignore[arg-type]


def test_training_is_submitted_with_its_parameters(stand_in: StandIn, server: Server) -> None:
    data = {"data": "dvc:abc", "dvc_root": "/mtrec/dvc", "tracking_uri": ""}
    started = submit(order(parameters=data, service_account="mtrec-trainer", pipeline_root="s3://b/r"), server)
    run = stand_in.runs[started.id]
    given = run["runtime_config"]["parameters"]
    assert json.loads(given.pop("scenario")) == load_scenario("ecommerce").as_dict()
    assert given == {"data": "dvc:abc", "dvc_root": "/mtrec/dvc"}
    assert run["service_account"] == "mtrec-trainer"
    assert run["runtime_config"]["pipeline_root"] == "s3://b/r"
    assert stand_in.experiments[run["experiment_id"]]["display_name"] == "ecommerce"
    assert run["display_name"].startswith("ecommerce-training-2")


def test_monitoring_is_submitted(stand_in: StandIn, server: Server) -> None:
    started = submit(order(kind="monitoring", parameters={"drop": "/mtrec/drops"}, experiment="watch"), server)
    assert stand_in.runs[started.id]["runtime_config"]["parameters"]["drop"] == "/mtrec/drops"
    assert [one["display_name"] for one in stand_in.experiments.values()] == ["watch"]


def test_a_search_is_submitted(stand_in: StandIn, server: Server, repository: Path) -> None:
    cluster = load_cluster(repository / "k8s" / "overlays" / "dev" / "cluster.yaml")
    given = {"study": "first", "trials": 7, "text_cache": ""}
    started = submit(order(kind="search", placed=Placing.on(cluster), parameters=given), server)
    parameters = stand_in.runs[started.id]["runtime_config"]["parameters"]
    assert parameters.pop("scenario")
    assert parameters == {"study": "first", "trials": 7, "dvc_root": "/mtrec/dvc", "text_cache": "/mtrec/texts"}
    documents = stand_in.documents[started.prepared.version_id]
    assert "MTREC_STUDIES" in yaml.safe_dump(documents[1])
    empty = load_scenario("ecommerce", ["search.space={}"])
    with pytest.raises(ConfigError, match=r"search\.space is empty"):
        order(kind="search", scenario=empty)


def test_a_search_without_a_database_and_another_namespace_are_refused_before_the_upload(
    stand_in: StandIn, server: Server
) -> None:
    with pytest.raises(InputError, match="MTREC_STUDIES, the database of studies"):
        order(kind="search")
    with pytest.raises(InputError, match="MTREC_STUDIES"):
        order(kind="search", placed=Placing.on(Cluster()))
    server.namespace = "team-a"
    with pytest.raises(InputError, match="--namespace team-a: the cluster file says namespace: mtrec"):
        submit(order(placed=Placing.on(Cluster())), server)
    assert not stand_in.pipelines


def test_a_server_for_one_user_takes_its_own_namespace_alone(stand_in: StandIn, server: Server) -> None:
    server.home = "kubeflow"
    apart = r"for a single user, and runs pods in kubeflow only, not in mtrec: set namespace: kubeflow in the"
    with pytest.raises(InputError, match=apart):
        submit(order(placed=Placing.on(Cluster())), server)
    assert not stand_in.pipelines
    submit(order(placed=Placing.on(Cluster(namespace="kubeflow"))), server)
    submit(order(), server)
    server.multi_user = True
    prepare(order(placed=Placing.on(Cluster())), server)


def test_the_same_again_is_the_same_version_and_another_image_another(stand_in: StandIn, server: Server) -> None:
    first, again = submit(order(), server), submit(order(), server)
    assert first.prepared.uploaded
    assert not again.prepared.uploaded
    assert first.prepared.version == again.prepared.version
    assert first.id != again.id
    assert submit(order(placed=Placing(image="other/python:2")), server).prepared.uploaded
    assert len(stand_in.pipelines) == 1
    assert len(stand_in.versions) == 2


def test_two_who_upload_at_once_have_one_version(stand_in: StandIn, server: Server) -> None:
    def somebody_is_faster(request: object) -> None:
        if getattr(request, "path", "").endswith("/upload_version") and not stand_in.versions:
            stand_in.trouble = lambda request: None
            with connect(Access(host=stand_in.url)) as other:
                prepare(order(), other)

    stand_in.trouble = somebody_is_faster  # type: ignore[assignment]
    assert not prepare(order(), server).uploaded
    assert len(stand_in.versions) == 1


def test_what_a_cluster_is_configured_with_goes_along(
    stand_in: StandIn, server: Server, repository: Path, tmp_path: Path
) -> None:
    cluster = load_cluster(repository / "k8s" / "cluster" / "cluster.yaml")
    if server.version == (2, 14):
        with pytest.raises(ConfigError, match=r"needs Kubeflow Pipelines 2\.17: .*set a security context"):
            submit(order(placed=Placing.on(cluster)), server)
        assert not stand_in.runs
        cluster = cluster.model_copy(update={"run_as_user": None})
    started = submit(order(placed=Placing.on(cluster), parameters={"text_cache": "/else/where"}), server)
    given = stand_in.runs[started.id]["runtime_config"]["parameters"]
    paths = {name: given[name] for name in ("dvc_root", "checkpoints", "text_cache")}
    assert paths == {"dvc_root": "/mtrec/dvc", "checkpoints": "/mtrec/checkpoints", "text_cache": "/else/where"}
    lease = json.loads(given["lease"])
    assert lease["kubernetes"]["name"] == "mtrec-ecommerce-training"
    assert lease["kubernetes"]["namespace"] == "mtrec"
    assert lease["seconds"] == 6 * 3600
    documents = stand_in.documents[started.prepared.version_id]
    assert "AWS_SECRET_ACCESS_KEY" in yaml.safe_dump(documents[1])


def test_a_run_that_does_not_fit_is_refused_in_one_line(server: Server) -> None:
    with pytest.raises(
        InputError, match=r"refuses the request \(400\): Invalid input error: unknown parameter colour"
    ):
        submit(order(parameters={"colour": "red"}), server)


def test_a_scenario_that_no_workflow_takes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenario_text, "MOST", 10)
    with pytest.raises(ConfigError, match=r"scenario ecommerce: \d+ characters as JSON, at most 10"):
        submit(order(), server)


@pytest.mark.parametrize(
    ("kind", "part"), [("serving", "choose one of training, monitoring, search"), ("monitoring", "--data")]
)
def test_a_wrong_order(kind: str, part: str) -> None:
    with pytest.raises(InputError, match=part):
        order(kind=kind)
