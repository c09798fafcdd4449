"""Registering candidates: one version per lineage whatever happens, no pickle, the first champion."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtrec import tracking
from mtrec.config import Scenario
from mtrec.errors import ModelError, RunError
from mtrec.lease import Held, Lease, holding
from mtrec.tracking import registry
from mtrec.tracking.connection import connected
from mtrec.tracking.deciding import lease_of

LINEAGE = {
    "data_version": "5d41402abc4b2a76b9719d911017c592.dir",
    "code_revision": "abc",
    "parameters_hash": "123",
    "image": "local",
    "pipeline_run": "monday",
}
Judged = Callable[..., dict[str, Path]]


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def register(uri: str, model: Path, scenario: Scenario, judged: Judged) -> Callable[..., tracking.Registration]:
    def call(*, evaluation: dict[str, Any] | None = None, verdict: str = "pass", **lineage: str) -> Any:
        return tracking.register(
            model,
            scenario=scenario,
            lineage=LINEAGE | lineage,
            **judged(evaluation=evaluation, verdict=verdict),
        )

    return call


BY_OTHERS = {"pandas", "scikit-learn", "jinja2", "pyyaml", "filelock", "psutil"}
"""What requiring mlflow, torch and peft brings."""


def direct_dependencies(imported: list[str]) -> set[str]:
    """The distributions that mtrec's own dependencies name, among imported top-level modules."""
    from importlib.metadata import packages_distributions, requires

    named = {re.split(r"[^\w.-]", line)[0].lower() for line in requires("mtrec") or [] if "extra ==" not in line}
    owners = packages_distributions()
    return {owner.lower() for module in imported for owner in owners.get(module, [])} & named


def versions(uri: str, name: str) -> list[str]:
    with connected(uri) as client:
        return sorted(str(version.version) for version in client.search_model_versions(f"name = '{name}'"))


def test_the_first_candidate_that_passes_is_champion(register: Any, uri: str) -> None:
    refused = register(verdict="fail", code_revision="a")
    assert (refused.name, refused.version, refused.champion) == ("ecommerce-candidate", "1", False)
    assert tracking.download_champion("ecommerce", Path("nothing")) is None
    first = register(code_revision="b")
    assert (first.version, first.created, first.champion, first.champion_version) == ("2", True, True, "1")
    assert first.aliases == ("candidate",)
    second = register(code_revision="c")
    assert (second.version, second.created, second.champion, second.champion_version) == ("3", True, False, None)
    with connected(uri) as client:
        champion = client.get_model_version_by_alias("ecommerce", "champion")
        candidate = client.get_model_version_by_alias("ecommerce-candidate", "candidate")
    assert (champion.version, champion.tags["code_revision"]) == (1, "b")
    assert champion.tags["copied_from"] == "ecommerce-candidate/2"
    assert str(candidate.version) == "3"


def test_people_choose_after_the_first_champion(register: Any, uri: str) -> None:
    register(code_revision="a")
    with connected(uri) as client:
        client.delete_registered_model_alias("ecommerce", "champion")
    again = register(code_revision="b")
    assert not again.champion
    assert tracking.download_champion("ecommerce", Path("nothing")) is None


def test_a_version_says_what_it_was_made_from(register: Any, uri: str) -> None:
    made = register(evaluation={"champion": {"name": "ecommerce", "version": "3"}})
    shown = tracking.show_model("ecommerce-candidate/1")
    assert {key: shown.tags[key] for key in LINEAGE} == LINEAGE
    assert shown.tags["gate"] == shown.gate == "pass"
    assert shown.tags["champion_compared"] == "ecommerce/3"
    assert shown.tags["run_id"] == shown.run_id == made.run_id
    assert "| rating | rmse ↓ | 1.21 | 0.931 | – |" in shown.card
    assert shown.metrics["test/rating.rmse"] == 0.931
    assert shown.metrics["before/next_item.ndcg_at_10"] == 0.01
    assert "champion/rating.rmse" not in shown.metrics
    with connected(uri) as client:
        names = {item.path for item in client.list_artifacts(made.run_id, "evaluation")}
        files = ("evaluation.json", "gate.json", "report.html", "model_files.json")
        assert names == {f"evaluation/{name}" for name in files}
        run = client.get_run(made.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mtrec.data_version"] == LINEAGE["data_version"]


def test_a_refused_run_shows_why(uri: str, scenario: Scenario, judged: Judged) -> None:
    files = {name: path.rename(path.with_suffix("")) for name, path in judged(verdict="fail").items()}
    run = tracking.log_judgement(scenario, lineage=LINEAGE, **files)
    with connected(uri) as client:
        shown = client.get_run(run.run_id)
        names = {item.path for item in client.list_artifacts(run.run_id, "evaluation")}
    assert names == {f"evaluation/{name}" for name in ("evaluation.json", "gate.json", "report.html")}
    assert shown.data.tags["mtrec.gate"] == "fail"
    assert shown.data.metrics["test/rating.rmse"] == 0.931
    assert shown.info.status == "FINISHED"
    assert tracking.list_models() == []


def test_nothing_logged_is_a_pickle(register: Any, tmp_path: Path) -> None:
    register()
    files = [path for path in (tmp_path / ".mtrec" / "mlartifacts").rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"MLmodel", "pyfunc.py", "model.safetensors", "requirements.txt", "input_example.json"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".joblib", ".bin"))]
    suspects = [path for path in files if path.read_bytes()[:1] == b"\x80" and path.suffix != ".safetensors"]
    assert suspects == [], "a file starts like a pickle"
    (mlmodel,) = (path.read_text() for path in files if path.name == "MLmodel")
    assert "loader_module: mlflow.pyfunc.loaders.code_model" in mlmodel
    assert "python_model:" not in mlmodel, "the model was pickled by cloudpickle"
    (requirements,) = (path.read_text().split() for path in files if path.name == "requirements.txt")
    assert all("==" in line for line in requirements)
    assert "torch==2.13.0" in requirements, "a local build tag cannot be installed elsewhere"


def test_the_signature_is_the_contract(register: Any, uri: str) -> None:
    import mlflow

    register()
    with registry.as_global(uri):
        loaded = mlflow.pyfunc.load_model("models:/ecommerce@champion")
    (inputs,), (outputs,) = loaded.metadata.signature.inputs, loaded.metadata.signature.outputs
    assert {p.name: p.required for p in inputs.type.properties} == {
        "user_id": False,
        "history": False,
        "num_items": False,
    }
    assert {p.name: p.required for p in outputs.type.properties} == {"item_ids": True, "scores": True}
    (answer,) = loaded.predict([{"user_id": "u1"}])
    assert len(answer.item_ids) == len(answer.scores) == 10


def test_a_fresh_process_needs_mlflow_alone(register: Any, uri: str, model: Path, tmp_path: Path) -> None:
    """The model brings its own mtrec: the installed one is hidden from the process that loads it."""
    from mtrec.serving.predictor import Predictor

    register()
    predictor = Predictor.load(model)
    history = predictor.item_ids[:3]
    expected = predictor.recommend(history=history, num_items=4)
    code = """
import json, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [path for path in sys.path if not path.endswith("src")]
try:
    import mtrec
    raise SystemExit("mtrec is visible: this test proves nothing")
except ModuleNotFoundError:
    pass
import mlflow.pyfunc
model = mlflow.pyfunc.load_model("models:/ecommerce@champion")
(answer,) = model.predict([{"history": json.loads(sys.argv[1]), "num_items": 4}])
import mtrec
print(json.dumps({"answer": list(zip(answer.item_ids, answer.scores)), "code": mtrec.__file__,
                  "imported": sorted({name.partition(".")[0] for name in sys.modules})}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(history)],
        cwd=tmp_path / ".mtrec",
        env=os.environ | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["answer"] == [[item, pytest.approx(score, rel=1e-4)] for item, score in expected]
    assert Path(said["code"]).is_relative_to(tmp_path / ".mtrec" / "mlartifacts")
    assert not {"kfp", "dvc", "great_expectations", "matplotlib"} & set(said["imported"])
    (requirements,) = (tmp_path / ".mtrec" / "mlartifacts").rglob("requirements.txt")
    pinned = {line.partition("==")[0].lower() for line in requirements.read_text().split()}
    used = direct_dependencies(said["imported"])
    assert {"torch", "transformers", "polars", "pydantic"} <= used <= pinned | BY_OTHERS


def test_the_same_lineage_twice_makes_one_version(register: Any, uri: str, tmp_path: Path) -> None:
    first = register()
    logged = sorted((tmp_path / ".mtrec" / "mlartifacts" / "models").iterdir())
    second = register(pipeline_run="tuesday")
    assert (first.created, second.created) == (True, False)
    assert (second.version, second.champion, second.champion_version) == (first.version, True, "1")
    assert versions(uri, "ecommerce-candidate") == ["1"]
    assert versions(uri, "ecommerce") == ["1"]
    assert sorted((tmp_path / ".mtrec" / "mlartifacts" / "models").iterdir()) == logged


def test_any_other_origin_is_another_version(register: Any) -> None:
    key = registry.lineage_key(LINEAGE)
    assert registry.lineage_key(LINEAGE | {"pipeline_run": "tuesday"}) == key
    for name in ("data_version", "code_revision", "parameters_hash", "image"):
        assert registry.lineage_key(LINEAGE | {name: "other"}) != key
    assert [register(image=image).version for image in ("a", "b")] == ["1", "2"]


def test_students_of_two_teachers_are_two_versions(register: Any, uri: str) -> None:
    first, again, other = (register(teacher=name) for name in ("a", "a", "b"))
    assert (first.version, again.version, other.version) == ("1", "1", "2")
    with connected(uri) as client:
        assert client.get_model_version(other.name, "2").tags["teacher"] == "b"


def test_an_old_lineage_does_not_take_the_alias_back(register: Any, uri: str) -> None:
    register(code_revision="a")
    register(code_revision="b")
    again = register(code_revision="a")
    assert (again.version, again.aliases) == ("1", ())
    assert tracking.show_model("ecommerce-candidate@candidate").version == "2"


def test_a_new_judgement_of_an_old_version_is_shown(register: Any, uri: str) -> None:
    register(verdict="fail")
    assert tracking.show_model("ecommerce-candidate").card.startswith("# ecommerce: refused")
    assert register(verdict="pass").created is False
    shown = tracking.show_model("ecommerce-candidate")
    assert shown.gate == "pass"
    assert shown.card.startswith("# ecommerce: passed")


@pytest.mark.parametrize("point", ["_create_version", "copy_model_version", "set_registered_model_alias"])
def test_an_attempt_that_died_half_way_leaves_one_version(
    register: Any, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    from mlflow import MlflowClient

    def die(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError("died half-way")

    monkeypatch.setattr(registry if hasattr(registry, point) else MlflowClient, point, die)
    with pytest.raises(RuntimeError, match="died half-way"):
        register()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    done = register()
    assert (done.version, done.champion, done.champion_version) == ("1", True, "1")
    assert versions(uri, "ecommerce-candidate") == ["1"]
    assert versions(uri, "ecommerce") == ["1"]
    assert len(list((tmp_path / ".mtrec" / "mlartifacts" / "models").iterdir())) == 1, "the bytes were stored twice"


SCRIPT = """
import json, os, sys, time
from pathlib import Path
from mtrec import tracking
from mtrec.config import load_scenario
from mtrec.tracking import registry
import mlflow.pyfunc
given = json.loads(sys.argv[1])
if given["dies"]:
    registry._create_version = lambda *a, **k: os._exit(9)
Path(given["ready"]).touch()
while not Path(given["go"]).exists():
    time.sleep(0.002)
done = tracking.register(
    Path("model"), scenario=load_scenario(given["scenario"]), lineage=given["lineage"],
    tracking_uri=given["uri"], **{k: Path(v) for k, v in given["judged"].items()},
)
print(json.dumps({"version": done.version, "created": done.created, "champion": done.champion}))
"""


def start(repository: Path, judged: dict[str, Path], uri: str = "", **changes: Any) -> subprocess.Popen[bytes]:
    given = {
        "dies": False,
        "ready": f"ready-{time.monotonic_ns()}",
        "go": "go",
        "uri": uri,
        "scenario": str(repository / "scenarios" / "ecommerce.yaml"),
        "lineage": LINEAGE,
        "judged": {key: str(path) for key, path in judged.items()},
    } | changes
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(given)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_a_killed_process_leaves_one_version(register: Any, uri: str, repository: Path, judged: Judged) -> None:
    Path("go").touch()
    killed = start(repository, judged(), dies=True)
    assert killed.wait(timeout=120) == 9
    assert versions(uri, "ecommerce-candidate") == []
    done = register()
    assert (done.version, done.created, done.champion) == ("1", True, True)
    assert versions(uri, "ecommerce-candidate") == ["1"]


def register_at_once(processes: list[subprocess.Popen[bytes]]) -> list[dict[str, Any]]:
    while len(list(Path().glob("ready-*"))) < len(processes):
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        time.sleep(0.01)
    Path("go").touch()
    outputs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return [json.loads(out) for out, _ in outputs]


def test_two_processes_register_at_once(uri: str, model: Path, repository: Path, judged: Judged) -> None:
    done = register_at_once([start(repository, judged(), lineage=LINEAGE | {"pipeline_run": n}) for n in "ab"])
    assert sorted(one["created"] for one in done) == [False, True]
    assert {one["version"] for one in done} == {"1"}
    assert all(one["champion"] for one in done)
    assert versions(uri, "ecommerce-candidate") == ["1"]
    assert versions(uri, "ecommerce") == ["1"]


def test_without_a_lock_the_lowest_version_stays(register: Any, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two machines do on one server: the second sees the first only after writing its own version."""
    register()
    lookup = registry.of_lineage
    answers = iter([None])
    monkeypatch.setattr(registry, "of_lineage", lambda *a: next(answers, ...) and lookup(*a))
    done = register()
    assert (done.version, done.created) == ("1", False)
    assert versions(uri, "ecommerce-candidate") == ["1"]


def without_champion(uri: str) -> None:
    """As if the first candidate's copy were there and never named champion."""
    with connected(uri) as client:
        client.delete_registered_model_alias("ecommerce", "champion")
        client.delete_registered_model_tag("ecommerce", registry._FIRST)


@pytest.mark.parametrize("code", ["a", "b"])
def test_two_first_champions_at_once(register: Any, uri: str, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Another machine copies its candidate, of this lineage or of another; we see that after writing ours."""
    register(code_revision="a")
    without_champion(uri)
    lookup, unseen = registry.versions_of, iter(["ecommerce"])
    monkeypatch.setattr(
        registry, "versions_of", lambda c, n: [] if n == "ecommerce" and next(unseen, None) else lookup(c, n)
    )
    done = register(code_revision=code)
    assert done.champion_version == ("1" if code == "a" else None)
    assert versions(uri, "ecommerce") == ["1"]


def test_the_first_champion_waits_for_whoever_decides(
    register: Any, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_PATIENCE", 0.3)
    said = pytest.raises(Held, match=r"^approving ecommerce-candidate/7 is under way already")
    with holding(lease_of("ecommerce", uri), "approving ecommerce-candidate/7"), said:
        register()
    assert versions(uri, "ecommerce") == []
    assert register().champion_version == "1"


def test_a_champion_that_was_made_meanwhile_is_the_first(
    register: Any, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(verdict="fail")
    acquire = Lease.acquire

    def late(lease: Lease, what: str) -> int:
        with connected(uri) as client:
            client.copy_model_version("models:/ecommerce-candidate/1", "ecommerce")
            client.set_registered_model_alias("ecommerce", "champion", "1")
        return acquire(lease, what)

    monkeypatch.setattr(Lease, "acquire", late)
    assert register(code_revision="b").champion_version is None
    assert versions(uri, "ecommerce") == ["1"]


def test_a_version_of_unknown_origin_is_never_made_champion(register: Any, uri: str) -> None:
    register(code_revision="a")
    without_champion(uri)
    assert register(code_revision="b").champion_version is None
    assert tracking.download_champion("ecommerce", Path("nothing")) is None


def test_a_champion_that_people_made_and_took_back_stays_theirs(register: Any, uri: str) -> None:
    register(code_revision="a")
    without_champion(uri)
    with connected(uri) as client:
        client.set_registered_model_alias("ecommerce", "champion", "1")
        assert register(code_revision="b").champion_version is None
        client.delete_registered_model_alias("ecommerce", "champion")
    assert register(code_revision="a").champion_version is None


def test_the_champion_is_fetched_whole(register: Any, model: Path, tmp_path: Path) -> None:
    register()
    champion = tracking.download_champion("ecommerce", tmp_path / "champion")
    assert champion is not None
    assert (champion.name, champion.version, champion.data_version) == ("ecommerce", "1", LINEAGE["data_version"])
    fetched = {p.relative_to(champion.folder): p.read_bytes() for p in champion.folder.rglob("*") if p.is_file()}
    assert fetched == {p.relative_to(model): p.read_bytes() for p in model.rglob("*") if p.is_file()}


def test_any_version_is_fetched_by_its_name(register: Any, model: Path, tmp_path: Path) -> None:
    register(code_revision="a", members="ecommerce-candidate/8, ecommerce-candidate/9")
    register(code_revision="b")
    for reference, revision in (("ecommerce-candidate/1", "a"), ("ecommerce-candidate@candidate", "b")):
        found = tracking.download_model(reference, tmp_path / revision)
        assert found.tags["code_revision"] == revision
        assert (tmp_path / revision / "model.safetensors").read_bytes() == (
            model / "model.safetensors"
        ).read_bytes()
    first = tracking.show_model("ecommerce-candidate/1")
    assert first.tags["members"] == "ecommerce-candidate/8, ecommerce-candidate/9"
    assert "- Ensemble of: `ecommerce-candidate/8, ecommerce-candidate/9`" in first.card
    assert "members" not in tracking.show_model("ecommerce-candidate/2").tags
    with pytest.raises(ModelError, match=r"ecommerce-candidate/3: no such version \(known: "):
        tracking.download_model("ecommerce-candidate/3", tmp_path / "c")
    for mlmodel in (tmp_path / ".mtrec" / "mlartifacts" / "models").rglob("MLmodel"):
        mlmodel.unlink()
    with pytest.raises(RunError, match=r"^ecommerce-candidate/1.*: its files are not whole \(.*\); restore \.mt"):
        tracking.download_model("ecommerce-candidate/1", tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("damage", ["no list of files", "a cut list", "an empty list", "no weights"])
def test_a_champion_whose_files_are_gone(register: Any, tmp_path: Path, damage: str) -> None:
    register()
    (mlmodel,) = (tmp_path / ".mtrec" / "mlartifacts" / "models").rglob("MLmodel")
    if damage == "no list of files":
        mlmodel.unlink()
    elif damage == "a cut list":
        mlmodel.write_text("flavors: {python_function: [")
    elif damage == "an empty list":
        mlmodel.write_text("")
    else:
        shutil.rmtree(mlmodel.parent / "artifacts")
    with pytest.raises(RunError, match=r"champion ecommerce version 1: its files are not whole \(") as caught:
        tracking.download_champion("ecommerce", tmp_path / "champion")
    assert not (tmp_path / "champion").exists()
    place = mlmodel.parent.relative_to(tmp_path)
    assert f"they belong in {place}. Restore them there, or take the alias 'champion' off: " in str(caught.value)
    assert "tmp/" not in str(caught.value).replace(sys.executable, "")


@pytest.mark.parametrize("lost", ["MLmodel", "artifacts", "all"])
def test_a_champion_without_files_is_found_out_before_training_and_can_be_retired(
    register: Any, tmp_path: Path, lost: str
) -> None:
    assert not tracking.check_champion("ecommerce")
    register()
    assert tracking.check_champion("ecommerce")
    (mlmodel,) = (tmp_path / ".mtrec" / "mlartifacts" / "models").rglob("MLmodel")
    if lost == "MLmodel":
        mlmodel.unlink()
    else:
        shutil.rmtree(mlmodel.parent / "artifacts" if lost == "artifacts" else mlmodel.parent)
    with pytest.raises(RunError, match="champion ecommerce version 1: its files are not whole") as caught:
        tracking.check_champion("ecommerce")
    assert f"they belong in {mlmodel.parent.relative_to(tmp_path)}. Restore" in str(caught.value)
    command = str(caught.value).partition(" off: ")[2]
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    assert not tracking.check_champion("ecommerce")
    assert tracking.download_champion("ecommerce", tmp_path / "champion") is None


def test_a_model_that_does_not_answer_is_not_registered(
    register: Any, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recommend(*arguments: Any, **named: Any) -> Any:
        raise ValueError("no weights for\nitem-1")

    from mtrec.serving.predictor import Predictor

    works = Predictor.recommend
    monkeypatch.setattr(Predictor, "recommend", recommend)
    paths = list(sys.path)
    with pytest.raises(RunError, match=r"model: does not answer as a registered model \(.*no weights for item-1"):
        register()
    assert sys.path == paths
    assert versions(uri, "ecommerce-candidate") == []
    monkeypatch.setattr(Predictor, "recommend", works)
    assert register().version == "1"


def test_lists_for_people(register: Any, uri: str) -> None:
    assert tracking.list_models() == []
    register(code_revision="a")
    register(code_revision="b", verdict="fail")
    with connected(uri) as client:
        client.create_registered_model("somebody-elses")
    listed = [(row.name, row.version, row.aliases, row.gate) for row in tracking.list_models()]
    assert listed == [
        ("ecommerce", "1", ("champion",), "pass"),
        ("ecommerce-candidate", "2", ("candidate",), "fail"),
        ("ecommerce-candidate", "1", (), "pass"),
    ]
    assert tracking.show_model("ecommerce") == replace(
        tracking.list_models()[0], metrics=tracking.show_model("ecommerce").metrics
    )
    assert tracking.show_model("ecommerce-candidate").version == "2"
    assert tracking.show_model("ecommerce-candidate/1").tags["code_revision"] == "a"


def test_unknown_references_name_the_known_ones(register: Any) -> None:
    register()
    for reference, message in {
        "shop": r"shop: no such registered model \(known: ecommerce, ecommerce-candidate\)",
        "": r": no such registered model",
        "ecommerce/7": r"ecommerce/7: no such version \(known: ecommerce/1@champion\)",
        "ecommerce@candidate": r"ecommerce@candidate: no such version",
        "ecom'merce": r"ecom'merce: no such registered model",
    }.items():
        with pytest.raises(ModelError, match=message):
            tracking.show_model(reference)


def test_what_is_refused(register: Any, uri: str, model: Path, scenario: Scenario, judged: Judged) -> None:
    files = judged()
    with pytest.raises(RunError, match=r"lineage: image missing"):
        register(image="")
    with pytest.raises(ModelError, match=r"nowhere: not a model folder; it holds no safetensors"):
        tracking.register(Path("nowhere"), scenario=scenario, lineage=LINEAGE, **files)
    with pytest.raises(RunError, match=r"report\.html: not readable as JSON"):
        tracking.register(model, scenario=scenario, lineage=LINEAGE, **files | {"gate": files["report"]})
    (model / "optimizer.pt").touch()
    with pytest.raises(ModelError, match=r"optimizer\.pt: a pickled file may run code"):
        register()
    assert versions(uri, "ecommerce-candidate") == []
    assert os.environ.get("MLFLOW_TRACKING_URI") is None
