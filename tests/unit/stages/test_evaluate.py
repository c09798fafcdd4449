"""The evaluate stage: before, after and champion on the same rows, as JSON and as tables of predictions."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from mtrec.config import Columns, NextItem, Scenario
from mtrec.data.contract import Tables
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.splits import TEST
from mtrec.errors import DataError, ModelError, RunError
from mtrec.evaluation.judge import Answers
from mtrec.models.store import Bundle, load_model, new_model, save_model
from mtrec.progress import listening
from mtrec.stages import evaluate, preprocess
from mtrec.tracking import register
from tests.unit.tiny_shop import TASKS, shop_scenario, tasks_under


@pytest.fixture(scope="module")
def evaluation(shop_run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shop_run / "evaluation.json").read_text())
    return found


def run(folder: Path, run_folder: Path, scenario: Scenario, **inputs: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "dataset": run_folder / "dataset",
        "model": run_folder / "model",
        "champion": False,
    } | inputs
    return evaluate.run(
        evaluate.Inputs(**given),
        evaluate.Outputs(evaluation=folder / "evaluation.json", predictions=folder / "predictions"),
        scenario,
    )


# ------------------------------------------------------------------------------------------------ what it writes


def test_the_evaluation_has_the_promised_shape(evaluation: dict[str, Any], shop: Scenario, shop_run: Path) -> None:
    assert evaluation["scenario"] == shop.name
    assert datetime.fromisoformat(evaluation["created"]).tzinfo is not None
    assert evaluation["dataset"] == json.loads((shop_run / "dataset" / "card.json").read_text())
    training = json.loads((shop_run / "model" / "training.json").read_text())
    model = evaluation["model"]
    assert set(model) >= {"encoder", "parameters", "trained_parameters", "sharing", "seconds", "best_epoch"}
    assert {key: model[key] for key in ("parameters", "best_epoch")} == {
        key: training[key] for key in ("parameters", "best_epoch")
    }
    assert (model["sharing"], model["balancing"]) == ("shared_bottom", "static")
    assert sum(model["parts"].values()) == model["parameters"]
    assert 0 < model["trained_encoder"] < model["parts"]["encoder"]
    assert model["seconds_per_step"] == training["seconds_per_step"]
    assert set(evaluation["protocol"]) == {"split", "seen_items", "ranking", "tie_order", "text"}
    assert evaluation["champion"] is None
    assert list(evaluation["tasks"]) == list(shop.tasks)
    for name, task in evaluation["tasks"].items():
        assert set(task) >= {"type", "on", "primary", "num_examples", "metrics", "slices", "comparison"}
        assert set(task) >= {"reliability", "confusion", "histogram"}
        assert task["num_examples"] > 0, name
        for value in task["metrics"].values():
            assert isinstance(value["after"], float)
            assert isinstance(value["before"], float)
        for found in task["slices"]:
            assert set(found) == {"slice", "num_examples", "metric", "before", "after"}
    json.dumps(evaluation, allow_nan=False)


def test_it_says_each_primary_metric(evaluation: dict[str, Any], shop_run: Path) -> None:
    said = json.loads((shop_run / "said.json").read_text())["evaluate"]
    assert said == {
        f"{name}.{task['primary']}": task["metrics"][task["primary"]]["after"]
        for name, task in evaluation["tasks"].items()
    }


def test_predictions_are_kept_by_name(evaluation: dict[str, Any], shop_run: Path, shop: Scenario) -> None:
    dataset = Dataset.read(shop_run / "dataset")
    files = {path.stem for path in (shop_run / "predictions").iterdir()}
    assert files == set(shop.tasks)
    for name, task in shop.tasks.items():
        table = pl.read_parquet(shop_run / "predictions" / f"{name}.parquet")
        assert table.height == evaluation["tasks"][name]["num_examples"]
        if isinstance(task, NextItem):
            assert table.columns == ["user_id", "relevant", "ranks", "top"]
            assert set(table["top"].explode()) <= set(dataset.items["item_id"])
            assert table["relevant"].list.len().equals(table["ranks"].list.len())
        else:
            assert table.columns == ["user_id", "item_id", "target", "predicted"]
            assert set(table["user_id"].drop_nulls()) <= set(dataset.users["user_id"])
            assert set(table["item_id"].drop_nulls()) <= set(dataset.items["item_id"])
    rating = pl.read_parquet(shop_run / "predictions" / "rating.parquet")
    rmse = float(((rating["target"] - rating["predicted"]) ** 2).mean() ** 0.5)  # type: ignore[operator]
    assert rmse == pytest.approx(evaluation["tasks"]["rating"]["metrics"]["rmse"]["after"])


def test_evaluating_twice_measures_the_same(
    evaluation: dict[str, Any], shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    run(tmp_path, shop_run, shop)
    again = json.loads((tmp_path / "evaluation.json").read_text())
    assert again | {"created": ""} == evaluation | {"created": ""}


# ------------------------------------------------------------------------------------------------ the champion


def same_rows(ours: Answers, theirs: Answers) -> None:
    for name, rows in ours.rows.items():
        other = theirs.rows[name]
        assert rows.user.tolist() == other.user.tolist(), name
        assert rows.item.tolist() == other.item.tolist(), name
        assert rows.target.tolist() == other.target.tolist(), name
        assert rows.predicted.shape == other.predicted.shape, name
    for name, users in ours.rankings.items():
        assert [u.user for u in users] == [u.user for u in theirs.rankings[name]], name
        assert [u.relevant.tolist() for u in users] == [u.relevant.tolist() for u in theirs.rankings[name]], name


def later_data(folder: Path, run_folder: Path, scenario: Scenario) -> tuple[Dataset, Encoding]:
    """The shop a while later: a category renamed, new items, users, tags and an event, some old ones gone."""
    tables = Tables.read(run_folder / "tables")
    category = tables.items["category"].mode().sort()[0]
    items = tables.items.tail(-3).with_columns(
        category=pl.when(pl.col("category") == category)
        .then(pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("New shelf")).otherwise("category"))
        .otherwise("category"),
        tags=pl.when(pl.int_range(pl.len()) % 4 == 0).then(pl.lit(["brand new"])).otherwise("tags"),
    )
    fresh = items.head(4).with_columns(item_id="new-" + pl.col("item_id"))
    rows = tables.interactions.join(items, on="item_id", how="semi")
    extra = rows.tail(60).with_columns(item_id=pl.Series(np.resize(fresh["item_id"].to_list(), 60)))
    rows = pl.concat([rows, extra])
    Tables(users=tables.users, items=pl.concat([items, fresh]), interactions=rows).write(folder / "tables")
    preprocess.run(
        preprocess.Inputs(tables=folder / "tables"), preprocess.Outputs(dataset=folder / "dataset"), scenario
    )
    return Dataset.read(folder / "dataset"), Encoding.read(folder / "dataset" / "encoding.json")


def test_a_model_of_other_vocabularies_answers_the_same_rows(
    shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    dataset, encoding = later_data(tmp_path, shop_run, shop)
    champion = load_model(shop_run / "model")
    assert champion.encoding.labels["category"].values != encoding.labels["category"].values
    assert champion.encoding.items.ids != encoding.items.ids
    start = new_model(dataset, encoding, shop)[0]
    candidate = Bundle(model=start.model.eval(), encoding=encoding, scenario=shop)
    ours = evaluate.answers(candidate, dataset, encoding, shop.tasks)
    theirs = evaluate.answers(champion, dataset, encoding, shop.tasks)
    same_rows(ours, theirs)
    assert set(theirs.rows) | set(theirs.rankings) == set(shop.tasks)
    # What the champion never knew has no probability from it; what it knows stands in the new order.
    values = encoding.labels["category"].values
    predicted = theirs.rows["category"].predicted
    assert "New shelf" in values
    assert (predicted[:, values.index("New shelf")] == 0).all()
    own = evaluate.answers(champion, dataset, champion.encoding, shop.tasks).rows["category"]
    old = champion.encoding.labels["category"].values
    by_item = dict(zip(own.item.tolist(), own.predicted, strict=True))
    for item, row in zip(theirs.rows["category"].item.tolist(), predicted, strict=True):
        if item in by_item:
            for value in set(values) & set(old):
                assert row[values.index(value)] == by_item[item][old.index(value)]


def changed_task(name: str, **settings: Any) -> Callable[[dict[str, Any]], None]:
    def change(tasks: dict[str, Any]) -> None:
        tasks[name] = {**tasks[name], **settings}

    return change


@pytest.mark.parametrize(
    ("change", "left_out"),
    [
        (lambda tasks: tasks.pop("rating"), set()),
        (changed_task("rating", weight=3.0), set()),
        (changed_task("like", threshold=5), {"like"}),
        (changed_task("profile", horizon=3), {"profile"}),
        (changed_task("next_item", events=["cart"]), {"next_item"}),
        (changed_task("purchase", exposure=["view", "cart"]), {"purchase"}),
        (changed_task("category", label="items.brand"), {"category"}),
        # How a task is learned is not what it asks.
        (changed_task("next_item", full_softmax=1), set()),
        (changed_task("next_item", events=["purchase", "cart", "view"]), set()),
        (changed_task("next_sampled", num_negatives=5), set()),
        (changed_task("profile", cos_gt=0.5), set()),
        (changed_task("tags", min_count=3), set()),
        *((changed_task(name, horizon=3), set()) for name in ("rating", "category", "region", "next_item")),
        (lambda tasks: tasks.update(purchase=tasks.pop("like")), {"purchase"}),
        (lambda tasks: tasks.update(extra=tasks["price"]), {"extra"}),
    ],
)
def test_a_champion_is_asked_only_what_it_learned(
    change: Callable[[dict[str, Any]], Any], left_out: set[str], shop_run: Path, tmp_path: Path
) -> None:
    tasks = dict(TASKS)
    change(tasks)
    scenario = shop_scenario("unused", tasks=tasks)
    preprocess.run(
        preprocess.Inputs(tables=shop_run / "tables"),
        preprocess.Outputs(dataset=tmp_path / "dataset"),
        scenario,
    )
    dataset = Dataset.read(tmp_path / "dataset")
    encoding = Encoding.read(tmp_path / "dataset" / "encoding.json")
    found = evaluate.answers(load_model(shop_run / "model"), dataset, encoding, scenario.tasks)
    assert set(found.rows) | set(found.rankings) == set(tasks) - left_out


def test_a_champion_reads_the_texts_it_was_trained_on(shop_run: Path, shop: Scenario, tmp_path: Path) -> None:
    """A candidate with another template must not change what the champion sees."""
    champion = load_model(shop_run / "model")
    other = shop_scenario("unused", items=shop.items.model_dump() | {"text": "{brand}"})
    preprocess.run(
        preprocess.Inputs(tables=shop_run / "tables"), preprocess.Outputs(dataset=tmp_path / "dataset"), other
    )
    dataset = Dataset.read(tmp_path / "dataset")
    assert dataset.items["text"].to_list() != Dataset.read(shop_run / "dataset").items["text"].to_list()
    found = evaluate.answers(champion, dataset, champion.encoding, shop.tasks).rows
    wanted = evaluate.answers(champion, Dataset.read(shop_run / "dataset"), champion.encoding, shop.tasks).rows
    for name in ("category", "rating"):
        assert (found[name].predicted == wanted[name].predicted).all()


@pytest.fixture
def champion(uri: str, shop_run: Path, shop: Scenario, tmp_path: Path) -> Path:
    """The model of the shop's run is version 1 and champion; the folder of its files in MLflow."""
    gate = tmp_path / "gate.json"
    gate.write_text(json.dumps({"verdict": "pass", "rules": [], "champion": None}))
    lineage = {"data_version": "1", "code_revision": "2", "parameters_hash": "3", "image": "local"}
    register(
        shop_run / "model",
        scenario=shop,
        evaluation=shop_run / "evaluation.json",
        gate=gate,
        report=shop_run / "report.html",
        lineage={**lineage, "pipeline_run": "first"},
    )
    (found,) = {path.parent for path in (tmp_path / ".mtrec" / "mlartifacts").rglob("model.safetensors")}
    return found


@pytest.mark.usefixtures("champion")
def test_the_registered_champion_is_compared(
    evaluation: dict[str, Any], shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    run(tmp_path, shop_run, shop, champion=True)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["champion"] == {"name": "tiny-shop", "version": "1", "tasks": list(TASKS), "other_split": []}
    for name, task in found["tasks"].items():
        # The same model against itself: the same numbers, and no difference.
        assert task["comparison"]["verdict"] == "same", name
        assert task["comparison"]["difference"] == 0, name
        for value in task["metrics"].values():
            if value["champion"] is not None:
                assert value["champion"] == value["after"]


@pytest.mark.usefixtures("champion")
@pytest.mark.parametrize(
    ("split", "told"),
    [
        ({"by": "time", "seed": 4}, ["split.seed is 0 there and 4 here"]),
        ({"by": "time", "test": 0.2}, ["split.test is 0.1 there and 0.2 here"]),
        ({"by": "leave_last_out"}, ["split.by is time there and leave_last_out here"]),
        ({"by": "time", "test": 0.05, "valid": 0.2}, []),  # all test rows are among those of the champion
    ],
)
def test_a_champion_of_another_split_may_know_the_test_rows(
    split: dict[str, Any], told: list[str], shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    other = shop_scenario(shop.model.encoder.name, split=split, tasks=tasks_under(split["by"]))
    said = preprocess.run(
        preprocess.Inputs(tables=shop_run / "tables"), preprocess.Outputs(dataset=tmp_path / "dataset"), other
    )
    dataset = Dataset.read(tmp_path / "dataset")
    champions = Dataset.read(shop_run / "dataset")
    held_out = ("items", "users", "interactions")
    inside = all(
        (
            getattr(champions, name)["part"].to_numpy()[getattr(dataset, name)["part"].to_numpy() == TEST] == TEST
        ).all()
        for name in held_out
    )
    assert said["num_test"] > 0
    assert inside == (not told)
    run(tmp_path, shop_run, other, champion=True, dataset=tmp_path / "dataset")
    assert json.loads((tmp_path / "evaluation.json").read_text())["champion"]["other_split"] == told


def without_column(
    table: str, column: str, shop_run: Path, shop: Scenario, folder: Path
) -> tuple[Scenario, Path, Path]:
    """Data that lacks a column, a scenario that does not read it, and a candidate for both."""
    tables = Tables.read(shop_run / "tables")
    Tables(
        **{
            name: frame.drop(column) if name == table else frame
            for name, frame in (
                ("users", tables.users),
                ("items", tables.items),
                ("interactions", tables.interactions),
            )
        }
    ).write(folder / "tables")

    def left(columns: Columns) -> dict[str, Any]:
        return {
            kind: [c for c in names if c != column]
            for kind, names in columns.model_dump().items()
            if kind != "text"
        }

    tasks = {name: task for name, task in TASKS.items() if task.get("label") != f"{table}.{column}"}
    text = shop.items.text.replace(f"{{{column}}}", "")
    scenario = shop_scenario(
        shop.model.encoder.name, users=left(shop.users), items={**left(shop.items), "text": text}, tasks=tasks
    )
    preprocess.run(
        preprocess.Inputs(tables=folder / "tables"), preprocess.Outputs(dataset=folder / "dataset"), scenario
    )
    dataset = Dataset.read(folder / "dataset")
    bundle, _, catalogue = new_model(dataset, Encoding.read(folder / "dataset" / "encoding.json"), scenario)
    training = json.loads((shop_run / "model" / "training.json").read_text())
    save_model(folder / "model", bundle, dataset, catalogue, training)
    return scenario, folder / "dataset", folder / "model"


@pytest.mark.usefixtures("champion")
@pytest.mark.parametrize(
    ("table", "column"),
    [("items", "description"), ("items", "brand"), ("items", "tags"), ("users", "gender"), ("users", "age")],
)
def test_a_champion_that_cannot_read_the_data_stops_the_evaluation(
    table: str, column: str, shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    """The candidate must not win for want of a comparison."""
    scenario, dataset, model = without_column(table, column, shop_run, shop, tmp_path)
    with pytest.raises(RunError) as caught:
        run(tmp_path / "out", shop_run, scenario, champion=True, dataset=dataset, model=model)
    assert str(caught.value) == (
        f"champion tiny-shop version 1 cannot be judged: it was trained with {table}.{column}, which this data "
        "does not have. Map that under source in scenario tiny-shop again, or take the alias 'champion' off "
        "version 1 in MLflow; then nothing is compared with it."
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("champion")
def test_a_champion_that_reads_lists_as_single_values_stops_the_evaluation(
    shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    shutil.copytree(shop_run / "dataset", tmp_path / "dataset")
    items = pl.read_parquet(tmp_path / "dataset" / "items.parquet")
    items.with_columns(pl.concat_list("brand")).write_parquet(tmp_path / "dataset" / "items.parquet")
    raw = json.loads((tmp_path / "dataset" / "encoding.json").read_text())
    raw["items"]["multi"]["brand"] = raw["items"]["categorical"].pop("brand")
    (tmp_path / "dataset" / "encoding.json").write_text(json.dumps(raw))
    columns = shop.items.model_copy(update={"categorical": ["category"], "multi": ["tags", "brand"]})
    scenario = shop.model_copy(update={"items": columns})
    dataset = Dataset.read(tmp_path / "dataset")
    bundle, _, catalogue = new_model(dataset, Encoding.read(tmp_path / "dataset" / "encoding.json"), scenario)
    training = json.loads((shop_run / "model" / "training.json").read_text())
    save_model(tmp_path / "model", bundle, dataset, catalogue, training)
    given = {"dataset": tmp_path / "dataset", "model": tmp_path / "model"}
    with pytest.raises(
        RunError, match=r"champion tiny-shop version 1 cannot be judged: items\.categorical: .*lists"
    ):
        run(tmp_path / "out", shop_run, scenario, champion=True, **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["encoder", "encoder/tokenizer.json", "encoding.json", "model.safetensors"])
def test_a_champion_with_missing_files_stops_the_evaluation(
    name: str, champion: Path, shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    path = champion / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(RunError) as caught:
        run(tmp_path / "out", shop_run, shop, champion=True)
    message = str(caught.value)
    assert message.startswith("champion tiny-shop version 1 cannot be loaded: its model folder")
    assert name.partition("/")[0] in message
    assert "Restore its files in MLflow, or take the alias 'champion' off version 1" in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def broken_model(source: Path, folder: Path) -> Path:
    """A copy of a model folder in which one weight of the head of `rating` is NaN."""
    shutil.copytree(source, folder)
    bundle = load_model(folder)
    with torch.no_grad():
        bundle.model.head("rating").linear.weight.view(-1)[0] = float("nan")
    save_file(bundle.model.state_dict(), folder / "model.safetensors")
    return folder


def test_a_candidate_that_answers_nan_stops_the_evaluation(shop_run: Path, shop: Scenario, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^tasks\.rating: .* of .* NaN or infinite.*train again with a lower"):
        run(tmp_path / "out", shop_run, shop, model=broken_model(shop_run / "model", tmp_path / "model"))
    assert not (tmp_path / "out").exists()


def test_a_champion_that_answers_nan_stops_the_evaluation(
    champion: Path, shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    weights = broken_model(shop_run / "model", tmp_path / "model") / "model.safetensors"
    shutil.copy(weights, champion / "model.safetensors")
    with pytest.raises(RunError) as caught:
        run(tmp_path / "out", shop_run, shop, champion=True)
    message = str(caught.value)
    assert message.startswith("champion tiny-shop version 1 cannot be judged: tasks.rating: ")
    assert message.endswith(
        "or take the alias 'champion' off version 1 in MLflow; then nothing is compared with it."
    )
    assert not (tmp_path / "out").exists()


def test_a_champion_whose_artifact_is_gone_stops_the_evaluation(
    champion: Path, shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    shutil.rmtree(champion)
    with pytest.raises(
        RunError, match=r"champion tiny-shop version 1: .*Restore them there, or take the alias 'champion' off"
    ) as caught:
        run(tmp_path / "out", shop_run, shop, champion=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there", [False, True])
def test_progress_names_the_champion_only_where_there_is_one(
    there: bool, uri: str, shop_run: Path, shop: Scenario, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if there:
        request.getfixturevalue("champion")
    phases: list[str] = []
    with listening(lambda progress: phases.append(progress.message)):
        run(tmp_path / "out", shop_run, shop, champion=True)
    between = ["looking for a champion", "the champion"] if there else ["looking for a champion"]
    assert phases == ["before fine-tuning", "after fine-tuning", *between, "comparing", ""]


# ------------------------------------------------------------------------------------------------ bad inputs


@pytest.mark.parametrize("name", ["model.safetensors", "training.json", "scenario.json"])
def test_a_damaged_model_is_refused_and_nothing_is_left(
    name: str, shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    shutil.copytree(shop_run / "model", tmp_path / "model")
    (tmp_path / "model" / name).write_text("{")
    with pytest.raises(ModelError) as caught:
        run(tmp_path / "out", shop_run, shop, model=tmp_path / "model")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_its_card_is_refused(shop_run: Path, shop: Scenario, tmp_path: Path) -> None:
    shutil.copytree(shop_run / "dataset", tmp_path / "dataset")
    (tmp_path / "dataset" / "card.json").unlink()
    with pytest.raises(DataError, match=r"card\.json"):
        run(tmp_path / "out", shop_run, shop, dataset=tmp_path / "dataset")
