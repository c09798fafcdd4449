"""The champion answers slice by slice: on its own test part just as evaluation measured it."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mtrec.config import Retraining, Scenario
from mtrec.data.cleaning import clean
from mtrec.data.contract import Tables
from mtrec.data.splits import TEST, split_by_id, split_interactions
from mtrec.drift.statistics import Timeline, windows_of
from mtrec.models.store import Bundle, load_model
from mtrec.stages.champion_answers import Said, ask


@pytest.fixture(scope="module")
def bundle(shop_run: Path) -> Bundle:
    return load_model(shop_run / "model")


@pytest.fixture(scope="module")
def known(shop_run: Path) -> Tables:
    return clean(Tables.read(shop_run / "tables"))[0]


def last(tables: Tables) -> datetime:
    moment = tables.interactions["timestamp"].max()
    assert isinstance(moment, datetime)
    return moment


@pytest.fixture(scope="module")
def own(bundle: Bundle, known: Tables, shop: Scenario) -> tuple[Said, Timeline]:
    """The reference's newest slice is exactly the champion's test part."""
    part = split_interactions(known.interactions, shop.split)
    before = known.interactions.filter(part != TEST)["timestamp"].max()
    assert isinstance(before, datetime)
    settings = Retraining(window_days=(last(known) - before) / timedelta(days=1), reference_windows=1)
    timeline = Timeline.of(known, last(known), settings)
    assert (timeline.slice_R == -1).sum() == (part == TEST).sum()
    return ask(bundle, known, timeline, settings), timeline


@pytest.mark.parametrize(
    "task", ["rating", "like", "purchase", "preferred_category", "profile", "next_item", "next_sampled"]
)
def test_its_own_test_part_is_answered_as_evaluation_measured(
    own: tuple[Said, Timeline], shop_run: Path, task: str
) -> None:
    measured = json.loads((shop_run / "evaluation.json").read_text())["tasks"][task]
    quality = own[0].qualities[f"quality.{task}"]
    score = float(np.nanmean(quality.score_R))
    found = score**0.5 if quality.squared else score
    assert found == pytest.approx(measured["metrics"][measured["primary"]]["after"], abs=1e-4)


def test_item_tasks_are_judged_on_items_that_training_did_not_learn_from(
    own: tuple[Said, Timeline], known: Tables, shop: Scenario, bundle: Bundle
) -> None:
    said, timeline = own
    ids = known.items["item_id"]
    held = ids.filter((split_by_id(ids, shop.split) == TEST) | ~ids.is_in(bundle.encoding.items.ids)).to_list()
    scored = ~np.isnan(said.qualities["quality.category"].score_R)
    assert scored.any()
    assert set(timeline.rows["item_id"].filter(pl.Series(scored))) <= set(held)
    assert said.qualities["quality.category"].block_R is timeline.item_R


def test_predictions_stand_on_the_rows_they_are_about(own: tuple[Said, Timeline], shop: Scenario) -> None:
    said, timeline = own
    newest = timeline.slice_R == -1
    assert set(said.columns) == {"text", *(f"prediction.{name}" for name in shop.tasks)}
    rating = said.columns["prediction.rating"]
    assert rating.counts_R is not None
    assert rating.counts_R.tolist() == newest.tolist()  # with a label or without
    assert rating.values.filter(pl.Series(newest)).is_between(0, 6).all()
    users = timeline.rows["user_id"].filter(pl.Series(newest))
    for name in ("prediction.next_item", "prediction.region"):
        counts = said.columns[name].counts_R
        assert counts is not None
        assert not (counts & ~newest).any()
        asked = timeline.rows["user_id"].filter(pl.Series(counts))
        assert asked.is_unique().all()
        assert set(asked) <= set(users)
    category = said.columns["prediction.category"]
    assert category.counts_R is not None
    assert category.counts_R.mean() > 0.9  # all rows whose item has the label


def afterwards(known: Tables, *, wrong: bool = False) -> Tables:
    """The last window once more, perhaps with ratings turned round."""
    rows = known.interactions.filter(pl.col("timestamp") > last(known) - timedelta(days=60))
    rows = rows.with_columns(pl.col("timestamp") + timedelta(days=60))
    if wrong:
        rows = rows.with_columns(rating=6.0 - pl.col("rating"))
    joined = pl.concat([known.interactions, rows]).sort("user_id", "timestamp", maintain_order=True)
    return replace(known, interactions=joined)


def test_labels_that_turned_are_a_loss_of_quality_and_predictions_need_no_label(
    bundle: Bundle, known: Tables
) -> None:
    settings = Retraining(window_days=60)
    error, drifted, predicted = [], [], []
    for wrong in (False, True):
        tables = afterwards(known, wrong=wrong)
        timeline = Timeline.of(tables, last(known), settings)
        said = ask(bundle, tables, timeline, settings)
        error.append(float(np.nanmean(said.qualities["quality.rating"].score_R[timeline.slice_R == 0])))
        (window,) = windows_of(timeline, said.columns, said.qualities, settings)
        drifted.append(window.drifted)
        predicted.append(said.columns["prediction.rating"].values)
    assert error[1] > 1.5 * error[0]
    assert [name for name in drifted[0] if name.startswith(("prediction", "text"))] == []
    assert predicted[0].equals(predicted[1])
