import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl

from mtrec.config import load_scenario
from mtrec.errors import ConfigError
from pipelines.cluster_config import load_cluster
from pipelines.compiling import (
    FOR_CLUSTERS,
    check_source,
    check_spec,
    compile_guarded,
    compile_monitoring,
    compile_pipeline,
    compile_training,
)
from pipelines.placing import Placing
from pipelines.submitting import parameters_of
from pipelines.training import SIDE_EFFECTS

DIGEST = "registry.example/mtrec/python@sha256:" + "a" * 64


@dsl.component(base_image="python", install_kfp_package=False)
def decide() -> str:
    return "pass"


@dsl.component(base_image="python", install_kfp_package=False)
def say(text: str) -> None:
    print(text)


@dsl.component(base_image="python", install_kfp_package=False)
def clean_up(text: str, status: dsl.PipelineTaskFinalStatus) -> None:
    print(text, status)


def _pipeline_file(folder: Path, condition: str) -> Path:
    path = folder / "bad.py"
    path.write_text(
        "from kfp import dsl\n"
        "@dsl.pipeline(name='bad')\n"
        "def bad():\n"
        f"    with dsl.If({condition}):\n"
        "        say(text='x')\n"
    )
    return path


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("(a.output == 'x') and (b.output == 'y')", "'and' keeps one side"),
        ("a.output == 'x' or b.output == 'y'", "'or' keeps one side"),
        ("not a.output == 'x'", "'not' is evaluated while compiling"),
        ("a.output == 'x' == b.output", "hidden 'and'"),
        ("a.output", "write one comparison"),
        ("(a.output == 'x') & (b.output == 'y')", "write one comparison"),
        ("a.output in ('x', 'y')", "'in' and 'is'"),
    ],
)
def test_a_condition_that_kfp_would_drop_is_refused(tmp_path: Path, condition: str, reason: str) -> None:
    problems = check_source(_pipeline_file(tmp_path, condition))
    assert len(problems) == 1
    assert problems[0].startswith("bad.py:4: dsl.If(")
    assert reason in problems[0]
    assert "\n" not in problems[0]


def test_one_comparison_is_accepted(tmp_path: Path) -> None:
    assert check_source(_pipeline_file(tmp_path, "a.output == 'pass'")) == []


def test_a_dropped_condition_stops_the_compilation_and_writes_nothing(tmp_path: Path) -> None:
    source = _pipeline_file(tmp_path, "(a.output == 'x') and (b.output == 'y')")
    with pytest.raises(ConfigError, match="'and' keeps one side"):
        compile_pipeline(_plain_pipeline, tmp_path / "out.yaml", sources=[source])
    assert [path.name for path in tmp_path.iterdir()] == ["bad.py"]


def _plain_pipeline() -> Any:
    @dsl.pipeline(name="plain")
    def plain() -> None:
        decide()

    return plain


def _cached_exit_task() -> Any:
    @dsl.pipeline(name="exits")
    def exits() -> None:
        with dsl.ExitHandler(clean_up(text="bye")):
            decide()

    return exits


def _outside_the_exit_handler() -> Any:
    @dsl.pipeline(name="outside")
    def outside() -> None:
        with dsl.ExitHandler(clean_up(text="bye").set_caching_options(False)):
            inside = decide()
        say(text=inside.output)

    return outside


def _named_output_in_condition() -> Any:
    @dsl.component(base_image="python", install_kfp_package=False)
    def judge(verdict: dsl.OutputPath(str)) -> None:  # type: ignore[valid-type]
        print(verdict)

    @dsl.pipeline(name="named")
    def named() -> None:
        with dsl.If(judge().outputs["verdict"] == "pass"):
            say(text="x")

    return named


@pytest.mark.parametrize(
    ("build", "side_effects", "release", "reason"),
    [
        (_plain_pipeline, ("decide",), False, "task decide writes outside its outputs and is cached"),
        (_plain_pipeline, ("publish",), False, "task publish is listed .* not in the pipeline"),
        (_plain_pipeline, (), True, "image python can change under its name"),
        (_cached_exit_task, (), False, "exit task clean-up is cached"),
        (_outside_the_exit_handler, (), False, "does not compile: Illegal task dependency"),
        (_named_output_in_condition, (), False, "condition on judge-verdict"),
    ],
)
def test_a_trap_in_the_compiled_pipeline_is_one_clear_line(
    tmp_path: Path, build: Callable[[], Any], side_effects: tuple[str, ...], release: bool, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        compile_pipeline(build, tmp_path / "out.yaml", side_effects=side_effects, release=release)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_uncached_exit_task_is_accepted(tmp_path: Path) -> None:
    def build() -> Any:
        @dsl.pipeline(name="exits")
        def exits() -> None:
            with dsl.ExitHandler(clean_up(text="bye").set_caching_options(False)):
                decide()

        return exits

    compile_pipeline(build, tmp_path / "out.yaml")
    spec = yaml.safe_load((tmp_path / "out.yaml").read_text())
    assert check_spec(spec) == []
    assert "clean-up" in spec["root"]["dag"]["tasks"]


@pytest.mark.parametrize("kind", ["pipeline", "cluster"])
@pytest.mark.parametrize("name", FOR_CLUSTERS)
def test_a_pipeline_equals_its_golden_file(name: str, kind: str, tmp_path: Path, repository: Path) -> None:
    golden = repository / "tests" / "golden" / f"{name}_{kind}.yaml"
    cluster = load_cluster(repository / "k8s" / "cluster" / "cluster.yaml") if kind == "cluster" else None
    placed, given = Placing.on(cluster) if cluster else Placing(), parameters_of(name, cluster, None)
    compiled = FOR_CLUSTERS[name](tmp_path / "compiled.yaml", placed, parameters=given)
    assert compiled.read_text() == golden.read_text(), "the pipeline changed: look at it, then `make golden`"


def test_a_cluster_trains_with_the_pipeline_that_runs_here_and_an_exit_task_around_it(tmp_path: Path) -> None:
    here = yaml.safe_load(compile_training(tmp_path / "here.yaml").read_text())
    there = yaml.safe_load(compile_guarded(tmp_path / "there.yaml").read_text())
    assert there["root"]["inputDefinitions"] == here["root"]["inputDefinitions"]
    assert there["root"]["dag"]["tasks"]["record-outcome"]["triggerPolicy"]["strategy"] == (
        "ALL_UPSTREAM_TASKS_COMPLETED"
    )
    nested = there["components"]["comp-mtrec-training"]
    assert nested["dag"] == here["root"]["dag"]
    for name, executor in here["deploymentSpec"]["executors"].items():
        assert there["deploymentSpec"]["executors"][name] == executor


def test_monitoring_trains_with_the_training_pipeline_on_what_was_monitored(tmp_path: Path) -> None:
    compiled = compile_monitoring(tmp_path / "digest.yaml", Placing(image=DIGEST), release=True)
    spec = yaml.safe_load(compiled.read_text())
    assert {e["container"]["image"] for e in spec["deploymentSpec"]["executors"].values()} == {DIGEST}
    outer = spec["root"]["dag"]["tasks"]
    assert set(outer) == {"exit-handler-1", "record-outcome"}
    assert outer["record-outcome"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    looks = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert looks["condition-2"]["triggerPolicy"]["condition"].endswith("== 'retrain'")
    ((training, task),) = spec["components"]["comp-condition-2"]["dag"]["tasks"].items()
    assert training == "mtrec-training"
    given = task["inputs"]["parameters"]["data"]["componentInputParameter"]
    assert given == "pipelinechannel--monitor-data-data"
    tasks = spec["components"]["comp-mtrec-training"]["dag"]["tasks"]
    assert {"ingest-data", "fine-tune-model", "condition-1"} < set(tasks)


def test_a_release_takes_an_image_by_digest_and_refuses_a_tag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can change under its name"):
        compile_training(tmp_path / "tag.yaml", Placing(image="registry.example/mtrec/python:1.0"), release=True)
    assert not (tmp_path / "tag.yaml").exists()
    compiled = compile_training(tmp_path / "digest.yaml", Placing(image=DIGEST), release=True)
    spec = yaml.safe_load(compiled.read_text())
    images = {e["container"]["image"] for e in spec["deploymentSpec"]["executors"].values()}
    assert images == {DIGEST}
    gate = spec["root"]["dag"]["tasks"]["gate-model"]["inputs"]["parameters"]["image"]
    assert gate["runtimeValue"]["constant"] == DIGEST


def test_only_pure_tasks_are_cached_and_follow_data_and_code(tmp_path: Path) -> None:
    spec = yaml.safe_load(compile_training(tmp_path / "training.yaml").read_text())
    tasks = spec["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached == {"validate-data", "preprocess-data"}
    assert cached.isdisjoint(SIDE_EFFECTS)
    for name in cached:
        assert {"data_version", "code_revision", "scenario"} <= set(tasks[name]["inputs"]["parameters"])


def test_training_and_registration_are_told_the_same_code_revision(tmp_path: Path) -> None:
    spec = yaml.safe_load(compile_training(tmp_path / "training.yaml").read_text())
    tasks = spec["root"]["dag"]["tasks"]
    source = {"outputParameterKey": "code_revision", "producerTask": "ingest-data"}
    assert tasks["fine-tune-model"]["inputs"]["parameters"]["code_revision"]["taskOutputParameter"] == source
    (branch,) = [task for name, task in tasks.items() if name.startswith("condition")]
    (handed,) = [p for name, p in branch["inputs"]["parameters"].items() if name.endswith("-code_revision")]
    assert handed["taskOutputParameter"] == source


def test_gpus_are_asked_for_by_fine_tuning_only(tmp_path: Path) -> None:
    spec = yaml.safe_load(compile_training(tmp_path / "training.yaml", Placing(gpus=2)).read_text())
    executors = spec["deploymentSpec"]["executors"]
    asked = {name: e["container"].get("resources") for name, e in executors.items()}
    assert asked.pop("exec-fine-tune-model")["accelerator"]["count"] == "2"
    assert set(asked.values()) == {None}


def test_every_input_is_described_to_the_user_of_the_kfp_page(tmp_path: Path) -> None:
    spec = yaml.safe_load(compile_training(tmp_path / "training.yaml").read_text())
    for name, component in {"root": spec["root"], **spec["components"]}.items():
        if "dag" in component and name != "root":
            continue
        for kind in ("parameters", "artifacts"):
            for key, item in component.get("inputDefinitions", {}).get(kind, {}).items():
                assert item.get("description"), f"{name}.{key} has no description"


def test_a_scenario_compiled_in_becomes_the_default(tmp_path: Path) -> None:
    scenario = load_scenario("ecommerce")
    text = json.dumps(scenario.as_dict())
    compiled = compile_training(tmp_path / "training.yaml", parameters={"scenario": text})
    spec = yaml.safe_load(compiled.read_text())
    assert spec["root"]["inputDefinitions"]["parameters"]["scenario"]["defaultValue"] == text


def test_compiling_needs_no_torch_and_no_mlflow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipelines.compiling import compile_training;"
        "compile_training(Path('training.yaml'));"
        "print(sorted({'torch', 'transformers', 'mlflow', 'great_expectations'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert [path.name for path in tmp_path.iterdir()] == ["training.yaml"]
