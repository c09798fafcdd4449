"""The monitor beside a real champion: no drift, drift, and drops that must never train."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mtrec.config import Scenario
from mtrec.data.contract import Tables
from mtrec.data.forgotten import remember, users_in
from mtrec.data.versioning import directory_hash
from mtrec.errors import ConfigError, DataError, ModelError
from mtrec.stages import monitor
from tests.unit.stages.conftest import later


def test_more_of_the_same_is_skipped(check: Callable[..., dict[str, Any]], known: Tables, tmp_path: Path) -> None:
    told = check(later(known))
    assert (told["verdict"], told["reason"]) == ("skip", "nothing has drifted enough")
    assert len(told["windows"]) == 2
    assert told["data"]["problems"] == []
    assert told["data"]["new_rows"] == told["data"]["changed"]["interactions"] > 300
    assert told["champion"]["until"] == known.interactions["timestamp"].max().isoformat()  # type: ignore[union-attr]
    names = [statistic["name"] for statistic in told["windows"][0]["statistics"]]
    assert set(names) >= {"event", "users.age", "items.category", "items.tags", "new_items", "new_users"}
    merged = Tables.read(tmp_path / "out" / "tables")
    assert merged.interactions.height == known.interactions.height + told["data"]["new_rows"]
    assert told["data"]["version"] == directory_hash(tmp_path / "out" / "tables")
    assert "Nothing is to be trained now." in (tmp_path / "out" / "report").read_text()
    assert (tmp_path / "out" / "validation" / "new" / "data_docs" / "index.html").is_file()


def test_drift_is_a_reason_to_train(check: Callable[..., dict[str, Any]], known: Tables, tmp_path: Path) -> None:
    told = check(later(known, drifted=True))
    assert told["verdict"] == "retrain"
    assert "drift in 2 of the last 2 windows (" in told["reason"]
    assert "items.category" in told["windows"][1]["drifted"]
    page = (tmp_path / "out" / "report").read_text()
    assert "The champion should be trained again." in page
    assert "category of the items: drifted in 2 of the last 2 windows" in page


def test_a_change_of_known_items_is_drift(check: Callable[..., dict[str, Any]], known: Tables) -> None:
    """The reference has them as the champion knows them."""
    one = known.items["category"].drop_nulls()[0]
    told = check(replace(later(known), items=known.items.with_columns(category=pl.lit(one))))
    assert all("items.category" in window["drifted"] for window in told["windows"])


def test_rest_after_an_attempt(check: Callable[..., dict[str, Any]], known: Tables) -> None:
    """The champion's own run has just been started."""
    told = check(later(known, drifted=True), now=datetime.now(UTC).isoformat())
    assert told["verdict"] == "skip"
    assert told["reason"] == "last attempt 0.0 hours ago, the rest is 48"
    assert len(told["attempts"]) == 1


def test_a_small_poisoned_drop_cannot_hide_in_a_large_past(
    check: Callable[..., dict[str, Any]], known: Tables, tmp_path: Path
) -> None:
    bad = later(known, drifted=True)
    rating = pl.when(pl.col("event") == "rating").then(99.0)
    bad = replace(bad, interactions=bad.interactions.with_columns(rating=rating, event=pl.lit("rating")))
    check(later(known))
    assert (tmp_path / "out" / "tables").is_dir()
    few = replace(bad, interactions=bad.interactions.filter(pl.col("rating") == 99.0))
    assert few.interactions.height < known.interactions.height * 0.2  # few among all, which alone would pass
    told = check(few)
    assert told["verdict"] == "skip"
    assert "critical failure of the data" in told["reason"]
    assert "went to quarantine" in told["reason"]
    assert told["data"]["version"] is None
    assert told["windows"] == []
    assert not (tmp_path / "out" / "tables").exists()
    rule = told["rules"][0]
    assert (rule["rule"], rule["holds"]) == ("the new data passes its checks", False)
    assert "went to quarantine" in (tmp_path / "out" / "report").read_text()


def test_a_broken_schema_is_skipped_with_its_reason(check: Callable[..., dict[str, Any]], known: Tables) -> None:
    broken = later(known, drifted=True)
    told = check(replace(broken, interactions=broken.interactions.rename({"item_id": "product"})))
    assert told["verdict"] == "skip"
    assert "interactions: column 'item_id' is missing" in told["reason"]


def test_a_drop_that_is_not_there_is_skipped_with_its_reason(
    check: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    assert "no such folder" in check(tmp_path / "nowhere")["reason"]


def test_a_page_of_the_last_look_does_not_stay_beside_a_drop_that_fails(
    champion: Path, watched: Scenario, tmp_path: Path
) -> None:
    page = tmp_path / "evidently.html"
    page.write_text("the last look's")
    told = monitor.run(
        monitor.Inputs(
            drop=tmp_path / "nowhere", tracking_uri=f"sqlite:///{champion}/mlflow.db", dvc_root=champion / "dvc"
        ),
        monitor.Outputs(observed=tmp_path / "o", tables=tmp_path / "t", validation=tmp_path / "v", evidently=page),
        watched,
    )
    assert told["data"]["problems"]
    assert not page.exists()


def test_without_a_champion_there_is_nothing_to_compare_with(
    check: Callable[..., dict[str, Any]], known: Tables, watched: Scenario
) -> None:
    with pytest.raises(ModelError, match="scenario other has no champion yet"):
        check(known, watched.model_copy(update={"name": "other"}))


def test_a_lost_data_version_is_told(
    check: Callable[..., dict[str, Any]], known: Tables, champion: Path, tmp_path: Path
) -> None:
    shutil.copytree(champion / "dvc", tmp_path / "dvc")
    (tmp_path / "dvc-remote").mkdir()
    with pytest.raises(DataError, match="no such data version"):
        check(known, dvc_root=tmp_path / "dvc")


def test_a_wrong_time_is_told(check: Callable[..., dict[str, Any]], known: Tables) -> None:
    with pytest.raises(ConfigError, match="now 'soon' is not an ISO time"):
        check(known, now="soon")


def test_forgotten_users_are_not_in_what_a_retraining_would_learn_from(
    check: Callable[..., dict[str, Any]], known: Tables, champion: Path, watched: Scenario, tmp_path: Path
) -> None:
    for folder in ("dvc", "dvc-remote"):
        shutil.copytree(champion / folder, tmp_path / folder)
    drop = later(known)
    user = drop.interactions["user_id"][0]
    remember(tmp_path / "dvc", watched.name, [user])
    told = check(drop, dvc_root=tmp_path / "dvc")
    assert told["data"]["problems"] == []
    assert told["data"]["new_rows"] == drop.interactions.filter(pl.col("user_id") != user).height
    left = users_in(Tables.read(tmp_path / "out" / "tables"))
    assert left == users_in(known) - {user}
