"""The stand-in refuses what a server of its version would refuse."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from tests.kfp_stand_in import StandIn

Ask = Callable[..., tuple[int, str]]
HOME = "/apis/v2beta1"


@pytest.fixture(params=["2.14", "2.17"])
def stand_in(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    with StandIn(request.param).running() as server:
        yield server


@pytest.fixture(scope="module")
def compiled(repository: Path) -> list[Any]:
    return list(yaml.safe_load_all((repository / "tests/golden/training_pipeline.yaml").read_text()))


@pytest.fixture
def ask(stand_in: StandIn, compiled: list[Any]) -> Ask:
    """Send a request, with a pipeline, its version-2 and experiment-3 there."""
    http = urllib3.PoolManager()

    def send(method: str, path: str, body: Any = None, **query: str) -> tuple[int, str]:
        sent = http.request(
            method,
            f"{stand_in.url}{HOME}{path}{'?' if query else ''}{'&'.join(f'{k}={v}' for k, v in query.items())}",
            body=None if body is None else json.dumps(body),
        )
        return sent.status, sent.json().get("message", "")

    def upload(documents: list[Any], name: str = "v1") -> tuple[int, str]:
        file = ("p.yaml", "\n---\n".join(map(json.dumps, documents)))  # JSON is YAML, and sooner written
        address = f"{stand_in.url}{HOME}/pipelines/upload_version?name={name}&pipelineid=pipeline-1"
        sent = http.request("POST", address, fields={"uploadfile": file})
        return sent.status, sent.json().get("message", "")

    assert send("POST", "/pipelines", {"name": "p", "display_name": "p"})[0] == 200
    assert upload(compiled)[0] == 200
    assert send("POST", "/experiments", {"display_name": "e"})[0] == 200
    send.upload = upload  # type: ignore[attr-defined]
    return send


def run(**changed: Any) -> dict[str, Any]:
    body = {
        "display_name": "r",
        "experiment_id": "experiment-3",
        "pipeline_version_reference": {"pipeline_id": "pipeline-1", "pipeline_version_id": "version-2"},
        "runtime_config": {"parameters": {"scenario": "{}"}},
    }
    return body | changed


def schedule(**changed: Any) -> dict[str, Any]:
    cron = {"cron_schedule": {"cron": "0 0 3 * * *"}}
    return run(trigger=cron, mode="ENABLE", max_concurrency=1, no_catchup=True) | changed


def test_what_is_right_is_taken(ask: Ask) -> None:
    assert ask("POST", "/runs", run())[0] == 200
    assert ask("POST", "/recurringruns", schedule())[0] == 200


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"colour": "red"}, 'unknown field "colour"'),
        ({"runtime_config": {"parameter": {}}}, 'unknown field "parameter" in V2beta1Run.runtime_config'),
        ({"display_name": ""}, "name is empty"),
        ({"experiment_id": "e-9"}, "Experiment e-9 not found"),
        ({"pipeline_version_reference": {"pipeline_id": "pipeline-1"}}, "PipelineVersion"),
        ({"runtime_config": {"parameters": {}}}, "parameter scenario is missing"),
        ({"runtime_config": {"parameters": {"scenario": 1}}}, "parameter scenario: STRING is expected"),
        ({"runtime_config": {"parameters": {"scenario": "", "gpu": "1"}}}, "unknown parameter gpu"),
        ({"state": "DANCING"}, "V2beta1RuntimeState is expected"),
        ({"created_at": "yesterday"}, "RFC 3339"),
    ],
)
def test_a_run_that_is_wrong(ask: Ask, changed: dict[str, Any], part: str) -> None:
    status, message = ask("POST", "/runs", run(**changed))
    assert status in (400, 404)
    assert part in message


def test_what_only_the_newer_server_knows(stand_in: StandIn, ask: Ask) -> None:
    status, message = ask("POST", "/runs", run(plugins_input={"mlflow": {"experiment_name": "e"}}))
    if stand_in.tag == "2.14.3":
        assert (status, 'unknown field "plugins_input"' in message) == (400, True)
    else:
        assert status == 200


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"max_concurrency": 0}, "at least 1"),
        ({"max_concurrency": "11"}, "at most 10"),
        ({"trigger": {"cron_schedule": {"cron": "0 3 * * *"}}}, "Expected 6 fields, found 5"),
        ({"trigger": {"cron_schedule": {"cron": "0 0 3 * * *"}, "periodic_schedule": {}}}, "exactly one"),
        ({"mode": "SOMETIMES"}, "RecurringRunMode is expected"),
        ({"no_catchup": "yes"}, "bool is expected"),
    ],
)
def test_a_schedule_that_is_wrong(ask: Ask, changed: dict[str, Any], part: str) -> None:
    status, message = ask("POST", "/recurringruns", schedule(**changed))
    assert (status, part in message) == (400, True), message


CRONS = {
    "0 0 3 * * *": True, "*/10 0-5,30 ? 1,15 JAN-mar MON": True, "59 59 23 31 12 6": True, "0 5/15 03 * * ?": True,
    "60 0 3 * * *": False, "0 60 3 * * *": False, "0 0 24 * * *": False, "0 0 3 0 * *": False,
    "0 0 3 32 * *": False, "0 0 3 * 13 *": False, "0 0 3 * * 7": False, "0 0 three * * *": False,
    "0 0 3 * MON *": False, "0 0 3 * * JAN": False, "0 0 */0 * * *": False, "0 0 5-3 * * *": False,
    "0 0 3, * * *": False, "0 0 -3 * * *": False, "0 0 1-2-3 * * *": False, "0 0 3/ * * *": False,
    "0 0 * * L *": False,
}  # fmt: skip


@pytest.mark.parametrize("cron", CRONS)
def test_the_fields_of_a_schedule(ask: Ask, cron: str) -> None:
    status, message = ask("POST", "/recurringruns", schedule(trigger={"cron_schedule": {"cron": cron}}))
    assert (status, "Schedule cron is not a supported format" in message) == (
        (200, False) if CRONS[cron] else (400, True)
    )


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ({"page_size": "500"}, "page size"),
        ({"sort_by": "colour"}, "sorting field"),
        ({"filter": "display_name"}, "Failed to parse filter"),
        ({"filter": '{"predicates":[{"operation":"EQUALS","key":"colour","string_value":"x"}]}'}, "cannot filter"),
    ],
)
def test_a_list_that_is_wrong(ask: Ask, query: dict[str, str], part: str) -> None:
    status, message = ask("GET", "/runs", **query)
    assert (status, part in message) == (400, True), message


def test_a_pipeline_that_is_wrong(stand_in: StandIn, ask: Ask, compiled: list[Any]) -> None:
    upload: Callable[..., tuple[int, str]] = ask.upload  # type: ignore[attr-defined]
    (spec,) = compiled
    assert upload([spec])[0] == 409
    assert upload([spec], name="Two%20Words")[0] == 400
    assert "rooot" in upload([{**spec, "rooot": {}}], name="v2")[1]
    assert "invalid pipeline name" in upload([{**spec, "pipelineInfo": {"name": "A B"}}], name="v3")[1]
    components = {**spec["components"], "comp-x": {"taskConfigPassthroughs": []}}
    assert upload([{**spec, "components": components}], name="v4")[0] == (400 if stand_in.tag == "2.14.3" else 200)


def test_the_platforms_part_is_looked_at_when_a_run_starts(
    stand_in: StandIn, ask: Ask, compiled: list[Any]
) -> None:
    (spec,) = compiled
    config = {"secretAsEnv": [{"secretName": "s", "optional": False}]}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-gate-model": config}}}}}
    assert ask.upload([spec, platform], name="v2")[0] == 200  # type: ignore[attr-defined]
    (made,) = [one for one, version in stand_in.versions.items() if version["name"] == "v2"]
    reference = {"pipeline_id": "pipeline-1", "pipeline_version_id": made}
    status, message = ask("POST", "/runs", run(pipeline_version_reference=reference))
    if stand_in.tag == "2.14.3":
        assert (status, 'unknown field "optional"' in message) == (400, True)
    else:
        assert status == 200
