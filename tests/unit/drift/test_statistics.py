"""Windows on a fixed grid, each column by name, and what moved is found and told."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from mtrec.config import Retraining, Scenario
from mtrec.data.contract import Tables
from mtrec.drift.statistics import Column, Quality, Timeline, columns_of, windows_of
from mtrec.drift.windows import Statistic
from tests.unit.tiny_shop import shop_scenario

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = Retraining(window_days=7, min_distance=0.05)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def tables_of(rows: list[dict[str, Any]]) -> Tables:
    interactions = pl.DataFrame(rows, schema_overrides={"timestamp": pl.Datetime("us", "UTC")})
    return Tables(
        users=pl.DataFrame({"user_id": interactions["user_id"].unique(maintain_order=True)}),
        items=pl.DataFrame({"item_id": interactions["item_id"].unique(maintain_order=True)}).with_columns(
            title=pl.lit("x")
        ),
        interactions=interactions,
    )


def simple(days: list[float], users: list[str] | None = None) -> Tables:
    users = users or [f"u{i}" for i in range(len(days))]
    return tables_of(
        [
            {"user_id": u, "item_id": "i", "event": "view", "timestamp": day(d)}
            for u, d in zip(users, days, strict=True)
        ]
    )


# ------------------------------------------------------------------------------------------------ the grid


def test_the_grid_begins_at_the_champions_last_interaction() -> None:
    timeline = Timeline.of(simple([30, 1, 20, 20.001, 27, 27.5, 41.5]), day(20), SETTINGS)
    assert timeline.rows["timestamp"].to_list() == [day(d) for d in (1, 20, 20.001, 27, 27.5, 30, 41.5)]
    assert timeline.slice_R.tolist() == [-3, -1, 0, 0, 1, 1, 3]
    assert timeline.indices == [0, 1]  # nothing happened in window 2, and window 3 is not over


def test_a_window_counts_when_its_time_is_over() -> None:
    tables = simple([1, 21, 22])
    for now, indices in ((26.9, []), (27, [0]), (400, [0])):
        assert Timeline.of(tables, day(20), SETTINGS, day(now)).indices == indices
    assert Timeline.of(tables, day(20), SETTINGS, day(21.5)).rows.height == 2  # what comes later does not count


def test_blocks_are_users_within_slices() -> None:
    timeline = Timeline.of(simple([1, 2, 3, 21.5, 22], ["a", "b", "a", "a", "a"]), day(7), SETTINGS, day(28))
    block = timeline.block_R
    assert block[0] == block[2] != block[1]
    assert block[3] == block[4] != block[0]


def test_without_new_interactions_there_are_no_windows() -> None:
    timeline = Timeline.of(simple([1, 2]), day(2), SETTINGS, day(90))
    assert timeline.indices == []
    assert windows_of(timeline, {}, {}, SETTINGS) == []


def test_the_newest_row_of_an_item_counts() -> None:
    tables = simple([1.0, 2.0])
    items = pl.DataFrame({"item_id": ["i", "i"], "title": ["old", "new"]})
    timeline = Timeline.of(replace(tables, items=items), day(2), SETTINGS)
    assert timeline.rows["items.title"].to_list() == ["new", "new"]


# ------------------------------------------------------------------------------------------------ the columns


def test_every_feature_and_label_is_a_column(shop: Scenario, shop_data: Any) -> None:
    dataset = shop_data[0]
    tables = Tables(users=dataset.users, items=dataset.items, interactions=dataset.interactions)
    timeline = Timeline.of(tables, dataset.interactions["timestamp"].max(), SETTINGS)
    kinds = {name: column.kind for name, column in columns_of(timeline, shop).items()}
    assert kinds == {
        "event": "category", "rating": "number", "users.age": "number", "users.gender": "category",
        "items.price": "number", "items.brand": "category", "items.category": "category", "items.tags": "values",
        "users.region": "category",
    }  # fmt: skip


def test_a_label_of_an_interaction_is_one(tiny_bert: Any) -> None:
    tasks = {"useful": {"type": "regression", "on": "pair", "label": "interactions.votes"}}
    scenario = shop_scenario(tiny_bert, tasks=tasks, users={}, items={"text": "{title}"})
    tables = simple([1.0, 2.0])
    tables = replace(tables, interactions=tables.interactions.with_columns(votes=pl.Series([3, 4])))
    assert columns_of(Timeline.of(tables, day(2), SETTINGS), scenario)["votes"].kind == "number"


def test_rows_without_a_rating_do_not_count_for_it(shop: Scenario, shop_data: Any) -> None:
    dataset = shop_data[0]
    tables = Tables(users=dataset.users, items=dataset.items, interactions=dataset.interactions)
    timeline = Timeline.of(tables, dataset.interactions["timestamp"].max(), SETTINGS)
    counts = columns_of(timeline, shop)["rating"].counts_R
    assert counts is not None
    assert counts.sum() == dataset.interactions["rating"].drop_nulls().len() < len(counts)


def test_until_the_champion_items_are_as_it_knows_them() -> None:
    """What it does not know of them, a new column or a new item, is as it is now."""
    tables = simple([1, 2, 3])
    rows = tables.interactions.with_columns(item_id=pl.Series(["i", "new", "i"]))
    now = pl.DataFrame({"item_id": ["i", "new"], "size": [1.5, 2.5], "brand": ["b", "c"], "tags": [["x"], ["y"]]})
    before = pl.DataFrame({"item_id": ["i", "gone"], "size": [7, 8], "tags": ["x", "x"], "part": [0, 1]})
    timeline = Timeline.of(
        replace(tables, items=now, interactions=rows), day(2), SETTINGS, before=replace(tables, items=before)
    )
    assert timeline.rows["items.size"].to_list() == [7, 2.5, 1.5]
    assert timeline.rows["items.brand"].to_list() == ["b", "c", "b"]
    assert timeline.rows["items.tags"].to_list() == [["x"], ["y"], ["x"]]


# ------------------------------------------------------------------------------------------------ what is found


def busy(share_of_red: dict[int, float], users: int = 80, *, seed: int = 0) -> tuple[Timeline, pl.Series]:
    """So many users a week, three rows each, of which a share is red; weeks below 4 are the reference."""
    rng = np.random.default_rng(seed)
    rows, colours = [], []
    for week, share in share_of_red.items():
        for user in range(users):
            for _ in range(3):
                moment = day(7 * week + rng.uniform(0.01, 6.99))
                rows.append({"user_id": f"u{user}", "item_id": "i", "event": "view", "timestamp": moment})
                colours.append("red" if rng.random() < share else "blue")
    tables = tables_of([{**row, "colour": c} for row, c in zip(rows, colours, strict=True)])
    timeline = Timeline.of(tables, day(28), SETTINGS, day(7 * (max(share_of_red) + 1)))
    return timeline, timeline.rows["colour"]


def named(statistics: list[Statistic]) -> dict[str, Statistic]:
    return {statistic.name: statistic for statistic in statistics}


def test_a_column_that_moved_is_found_and_told() -> None:
    timeline, colour = busy({0: 0.3, 1: 0.3, 2: 0.3, 3: 0.3, 4: 0.3, 5: 0.6})
    same, moved = windows_of(timeline, {"colour": Column(values=colour, kind="category")}, {}, SETTINGS)
    assert same.drifted == []
    assert same.start == day(28)
    assert same.end == moved.start == day(35)
    assert same.num_rows == moved.num_rows == 240
    assert moved.drifted == ["colour"]
    found = named(moved.statistics)["colour"]
    assert found.value > 0.2 > found.limit > found.by_chance > 0
    assert found.probability is not None
    assert found.probability < 1e-6
    assert found.why.startswith(("red: ", "blue: "))
    assert "→" in found.why


def test_the_newest_part_of_the_reference_counts() -> None:
    """A change that the champion has learned is no drift any more."""
    timeline, colour = busy({0: 0.1, 1: 0.1, 2: 0.8, 3: 0.8, 4: 0.8})
    column = {"colour": Column(values=colour, kind="category")}
    for newest, drifted in ((2, []), (None, ["colour"])):
        (window,) = windows_of(timeline, column, {}, SETTINGS.model_copy(update={"reference_windows": newest}))
        assert window.drifted == drifted


def test_movement_below_the_threshold_is_not_drift_however_sure() -> None:
    timeline, colour = busy({0: 0.3, 1: 0.3, 2: 0.3, 3: 0.3, 4: 0.5}, users=400)
    column = {"colour": Column(values=colour, kind="category")}
    (window,) = windows_of(timeline, column, {}, SETTINGS.model_copy(update={"min_distance": 0.5}))
    assert named(window.statistics)["colour"].probability < 1e-6  # type: ignore[operator]
    assert window.drifted == []


def test_of_few_visitors_nothing_is_said() -> None:
    timeline, colour = busy({0: 0.3, 1: 0.3, 2: 0.3, 3: 0.3, 4: 1.0}, users=25)
    (window,) = windows_of(timeline, {"colour": Column(values=colour, kind="category")}, {}, SETTINGS)
    assert list(named(window.statistics)) == ["new_items", "new_users"]


def test_a_column_that_runs_empty_has_drifted() -> None:
    timeline, colour = busy({0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5})
    gone = pl.select(pl.when(pl.Series(timeline.slice_R < 0)).then(colour)).to_series()
    (window,) = windows_of(timeline, {"colour": Column(values=gone, kind="category")}, {}, SETTINGS)
    assert window.drifted == ["colour"]
    assert named(window.statistics)["colour"].why == "(empty): 0.0% → 100.0%"


def test_newcomers_count_beyond_what_is_usual() -> None:
    def shop_of(new_each_week: list[int]) -> Timeline:
        users, days = [], []
        for week, new in enumerate(new_each_week):
            for number in range(100):
                users.append(f"w{week}-{number}" if number < new else f"regular-{number}")
                days.append(7 * week + 3.0)
        return Timeline.of(simple(days, users), day(28), SETTINGS, day(35))

    for new_each_week, drifted in (
        ([40, 40, 40, 40, 40], []),
        ([0, 0, 0, 0, 40], ["new_users"]),
        ([0, 0, 0, 0, 25], []),
        ([80, 80, 80, 80, 95], []),
    ):
        (window,) = windows_of(shop_of(new_each_week), {}, {}, SETTINGS)
        assert window.drifted == drifted, new_each_week
        found = named(window.statistics)
        assert found["new_users"].value == pytest.approx(new_each_week[-1] / 100)
        assert found["new_users"].by_chance == pytest.approx(new_each_week[0] / 100)
        assert found["new_users"].limit == pytest.approx(
            min(new_each_week[0] / 100 + SETTINGS.max_new_share, 1)  # a share
        )
        assert found["new_items"].value == 0


# ------------------------------------------------------------------------------------------------ quality


def scored(before: float, now: float, **quality: Any) -> Statistic:
    """One task whose scores lie about these means, in the reference and in a window."""
    timeline, _ = busy({0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5})
    noise = np.random.default_rng(0).uniform(0.9, 1.1, len(timeline.slice_R))
    score_R = np.where(timeline.slice_R < 0, before, now) * noise
    score_R[timeline.slice_R < -2] = np.nan  # what the champion learned from
    (window,) = windows_of(timeline, {}, {"quality.rating": Quality(score_R=score_R, **quality)}, SETTINGS)
    return named(window.statistics)["quality.rating"]


@pytest.mark.parametrize(
    ("before", "now", "quality", "loss", "drifted"),
    [
        (1.0, 1.25, {"higher_is_better": False}, 0.2, True),
        (1.0, 1.05, {"higher_is_better": False}, 0.048, False),
        (1.0, 0.5, {"higher_is_better": False}, -1.0, False),
        (1.0, 4.0, {"higher_is_better": False, "squared": True}, 0.5, True),
        (0.1, 0.05, {"higher_is_better": True}, 0.5, True),
        (0.1, 0.099, {"higher_is_better": True}, 0.01, False),
        (0.1, 0.4, {"higher_is_better": True}, -1.0, False),
        (0.1, 0.0, {"higher_is_better": True}, 1.0, True),
    ],
)
def test_quality_is_a_bounded_share(
    before: float, now: float, quality: dict[str, Any], loss: float, drifted: bool
) -> None:
    found = scored(before, now, **quality)
    assert found.value == pytest.approx(loss, abs=0.02)
    assert found.drifted is drifted
    assert found.limit == SETTINGS.max_quality_loss


def test_a_loss_that_chance_explains_is_not_drift() -> None:
    timeline, _ = busy({0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5}, users=40)
    rng = np.random.default_rng(1)
    score_R = np.exp(rng.normal(0, 2, timeline.block_R.max() + 1))[timeline.block_R]  # a heavy tail over users
    score_R[timeline.slice_R == 0] *= (
        1.2 * score_R[timeline.slice_R < 0].mean() / score_R[timeline.slice_R == 0].mean()
    )
    (window,) = windows_of(timeline, {}, {"quality.x": Quality(score_R=score_R, higher_is_better=False)}, SETTINGS)
    found = named(window.statistics)["quality.x"]
    assert found.value == pytest.approx(1 - 1 / 1.2, abs=0.02)
    assert found.value > SETTINGS.max_quality_loss
    assert not found.drifted


def test_own_blocks_are_taken_where_given() -> None:
    timeline, _ = busy({0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5})
    score_R = np.where(timeline.slice_R < 0, 1.0, 2.0) * np.random.default_rng(0).uniform(
        0.9, 1.1, len(timeline.slice_R)
    )
    few = Quality(score_R=score_R, higher_is_better=False, block_R=timeline.block_R % 20)
    (window,) = windows_of(timeline, {}, {"quality.x": few}, SETTINGS)
    assert "quality.x" not in named(window.statistics)  # 20 items are too few to say anything


# ------------------------------------------------------------------------------------------------ false alarms


def test_false_alarms_keep_to_their_share_with_users_of_habits() -> None:
    """200 windows of users who each like one colour; ten columns at once."""
    rng = np.random.default_rng(7)
    alarms = []
    for seed in range(25):
        timeline, _ = busy(dict.fromkeys(range(12), 0.5), users=60, seed=seed)
        users = timeline.rows["user_id"].to_list()
        columns = {}
        for name in "abcdefghij":
            habit = {user: rng.integers(0, 6) for user in set(users)}
            whim = rng.random(len(users)) < 0.3
            values = np.where(whim, rng.integers(0, 6, len(users)), [habit[user] for user in users])
            columns[name] = Column(values=pl.Series(values), kind="category")
        found = windows_of(timeline, columns, {}, SETTINGS.model_copy(update={"min_distance": 0.0}))
        alarms += [bool(window.drifted) for window in found]
    assert len(alarms) == 200
    assert np.mean(alarms) <= 0.05
