import hashlib
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score

from mtrec.data.contract import Tables
from mtrec.data.sources.simulated import Dials, Truth, simulate
from mtrec.errors import ConfigError

Shop = tuple[Tables, Truth]
SMALL: dict[str, Any] = {"num_users": 120, "num_items": 150, "num_interactions": 4000}


@pytest.fixture(scope="module")
def shop() -> Shop:
    return simulate(Dials())


@pytest.fixture(scope="module")
def small() -> Shop:
    return simulate(Dials(**SMALL))


def rows_of(tables: Tables, truth: Truth, event: str) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """Interactions of one event, with the row numbers of their users and items."""
    chosen = tables.interactions.filter(pl.col("event") == event)
    users = {name: row for row, name in enumerate(truth.user_ids)}
    items = {name: row for row, name in enumerate(truth.item_ids)}
    return (
        chosen,
        np.array([users[u] for u in chosen["user_id"]]),
        np.array([items[i] for i in chosen["item_id"]]),
    )


def file_hashes(tables: Tables, folder: Path) -> list[str]:
    tables.write(folder)
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]


# ------------------------------------------------------------------------------------------------- shape


def test_default_size_and_contract(shop: Shop) -> None:
    tables, truth = shop
    assert tables.num_rows["users"] == 1500
    assert tables.num_rows["items"] == 1200
    assert 60_000 <= tables.num_rows["interactions"] <= 60_100
    assert tables.users.columns == ["user_id", "age", "gender", "region"]
    assert tables.items.columns == [
        "item_id", "title", "description", "category", "brand", "price", "tags", "released",
    ]  # fmt: skip
    assert tables.interactions.schema == {
        "user_id": pl.String, "item_id": pl.String, "event": pl.String, "rating": pl.Float64,
        "timestamp": pl.Datetime("us", "UTC"),
    }  # fmt: skip
    assert tables.users["user_id"].to_list() == truth.user_ids
    assert tables.items["item_id"].to_list() == truth.item_ids
    assert set(tables.interactions["user_id"]) == set(truth.user_ids), "every user appears"
    assert set(tables.interactions["item_id"]) <= set(truth.item_ids)


def test_events_follow_one_another(shop: Shop) -> None:
    events = shop[0].interactions
    counts = dict(events.group_by("event").len().iter_rows())
    assert set(counts) == {"view", "cart", "purchase", "rating"}
    assert counts["view"] > 2 * counts["cart"] > 2 * counts["purchase"] > 2 * counts["rating"] > 4000
    first = (
        events.group_by("user_id", "item_id", "event").agg(pl.col("timestamp").min())
        .pivot("event", index=["user_id", "item_id"])
    )  # fmt: skip
    for earlier, later in (("view", "cart"), ("cart", "purchase"), ("purchase", "rating")):
        both = first.filter(pl.col(later).is_not_null())
        assert both[earlier].null_count() == 0, f"a {later} without {earlier}"
        assert (both[later] >= both[earlier]).all()


def test_ratings_are_one_to_five_once_per_pair_and_nowhere_else(shop: Shop) -> None:
    events = shop[0].interactions
    ratings = events.filter(pl.col("event") == "rating")
    assert set(ratings["rating"]) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert not ratings.select("user_id", "item_id").is_duplicated().any()
    assert events.filter(pl.col("event") != "rating")["rating"].null_count() == events.height - ratings.height


def test_times_lie_in_the_period_and_are_sorted(shop: Shop) -> None:
    times = shop[0].interactions["timestamp"]
    assert times.is_sorted()
    first, last = times.min(), times.max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    assert datetime(2025, 1, 1, tzinfo=UTC) <= first < datetime(2025, 1, 3, tzinfo=UTC)
    assert datetime(2025, 6, 29, tzinfo=UTC) < last < datetime(2025, 7, 1, tzinfo=UTC)
    evening = times.dt.hour().is_between(19, 21).mean()
    assert isinstance(evening, float)
    assert evening > 0.25, "more happens in the evening than in 3 of 24 equal hours"


# ------------------------------------------------------------------------------------------------- determinism


def test_the_same_dials_give_the_same_bytes(small: Shop, tmp_path: Path) -> None:
    again, _ = simulate(Dials(**SMALL))
    assert file_hashes(small[0], tmp_path / "a") == file_hashes(again, tmp_path / "b")


def test_another_seed_gives_another_shop(small: Shop, tmp_path: Path) -> None:
    other, _ = simulate(Dials(**SMALL, seed=1))
    hashes = zip(file_hashes(small[0], tmp_path / "a"), file_hashes(other, tmp_path / "b"), strict=True)
    assert all(a != b for a, b in hashes)


def test_more_interactions_leave_goods_and_users_alone(small: Shop) -> None:
    more, _ = simulate(Dials(**{**SMALL, "num_interactions": 8000}))
    assert more.users.equals(small[0].users)
    assert more.items.equals(small[0].items)
    assert more.interactions.height >= 8000


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_users": 2, "num_items": 12, "num_interactions": 1},
        {"num_users": 3, "num_items": 30, "num_interactions": 500, "cold_items": 0.9},
        {"num_users": 500, "num_items": 12, "num_interactions": 50, "days": 1},
    ],
)
def test_odd_sizes_work(sizes: dict[str, int]) -> None:
    tables, _ = simulate(Dials.parse(sizes))
    assert tables.users.height == sizes["num_users"]
    assert tables.items.height == sizes["num_items"]
    assert tables.interactions.height >= sizes["num_interactions"]


def test_time_grows_no_faster_than_size() -> None:
    """Ten times the size takes about ten times as long; a quadratic step would take a hundred times."""
    seconds = []
    for factor in (1, 10):
        start = time.process_time()
        simulate(Dials(num_users=500 * factor, num_items=400 * factor, num_interactions=20_000 * factor))
        seconds.append(time.process_time() - start)
    assert seconds[1] < 40 * max(seconds[0], 0.1)


# ------------------------------------------------------------------------------------------------- truth


def test_ratings_follow_the_known_utility(shop: Shop) -> None:
    tables, truth = shop
    ratings, users, items = rows_of(tables, truth, "rating")
    by_utility = np.corrcoef(truth.utility(users, items), ratings["rating"])[0, 1]
    by_expectation = np.corrcoef(truth.expected_rating(users, items), ratings["rating"])[0, 1]
    assert by_utility > 0.65
    assert by_expectation > by_utility
    slope = np.polyfit(truth.expected_rating(users, items), ratings["rating"].to_numpy(), 1)[0]
    assert 0.6 < slope < 1.1, "clipping at 5 flattens the line a little"


def test_utility_is_standard_over_random_pairs(shop: Shop) -> None:
    truth, rng = shop[1], np.random.default_rng(0)
    sample = truth.utility(rng.integers(0, 1500, 20_000), rng.integers(0, 1200, 20_000))
    assert abs(sample.mean()) < 0.05
    assert abs(sample.std() - 1) < 0.05


def test_utility_broadcasts(small: Shop) -> None:
    truth = small[1]
    grid = truth.utility(np.arange(3)[:, None], np.arange(5)[None, :])
    assert grid.shape == (3, 5)
    assert grid[2, 4] == truth.utility(2, 4)


def test_purchases_follow_the_known_utility(shop: Shop) -> None:
    tables, truth = shop
    views, users, items = rows_of(tables, truth, "view")
    bought = set(tables.interactions.filter(pl.col("event") == "purchase").select("user_id", "item_id").iter_rows())
    target = [pair in bought for pair in views.select("user_id", "item_id").iter_rows()]
    assert 0.1 < np.mean(target) < 0.4
    assert roc_auc_score(target, truth.utility(users, items)) > 0.75


def test_viewed_items_are_liked_more_than_random_ones(shop: Shop) -> None:
    tables, truth = shop
    _, users, items = rows_of(tables, truth, "view")
    shuffled = np.random.default_rng(0).permutation(items)
    assert truth.utility(users, items).mean() > truth.utility(users, shuffled).mean() + 0.5


def test_preferences_depend_on_age_gender_and_region_but_not_only(shop: Shop) -> None:
    tables, truth = shop
    garden = truth.category_UC[:, truth.categories.index("Garden")]
    age = tables.users["age"].to_numpy()
    known = ~np.isnan(age.astype(float))
    assert 0.2 < np.corrcoef(age[known].astype(float), garden[known])[0, 1] < 0.9
    for column in ("gender", "region"):
        groups = tables.users[column].to_numpy()
        means = np.array([truth.category_UC[groups == g].mean(axis=0) for g in set(groups) - {None}])
        assert means.std(axis=0).mean() > 0.15, column


def test_sessions_have_structure(shop: Shop) -> None:
    """Within a session the next view mostly stays in the category, often with a companion product."""
    tables, truth = shop
    views, _, items = rows_of(tables, truth, "view")
    views = views.with_columns(type=pl.Series(truth.catalogue.type[items])).sort(
        "user_id", "timestamp", maintain_order=True
    )
    moves = views.with_columns(
        before=pl.col("type").shift(1).over("user_id"),
        gap=pl.col("timestamp").diff().over("user_id").dt.total_seconds(),
    ).filter(pl.col("gap") < 1800)
    before, after = moves["before"].to_numpy(), moves["type"].to_numpy()
    same_category = before // 8 == after // 8
    companion = same_category & (after % 8 == (before + 1) % 8)
    assert same_category.mean() > 0.7, "chance is about 0.1"
    assert companion.mean() > 0.2, "chance is about 0.01"


def test_popularity_has_a_long_tail(shop: Shop) -> None:
    counts = shop[0].interactions["item_id"].value_counts()["count"].sort(descending=True).to_numpy()
    assert counts[:120].sum() > 0.4 * counts.sum(), "a tenth of the items has over 40 % of the events"
    assert len(counts) > 1100, "nearly every item is seen"


# ------------------------------------------------------------------------------------------------- texts


def test_text_tells_category_and_tags_well_but_not_perfectly(shop: Shop) -> None:
    items = shop[0].items
    texts = (items["title"] + " " + items["description"].fill_null("")).to_list()
    features = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    model = LogisticRegression(C=10, max_iter=300)
    accuracy = cross_val_score(model, features, items["category"].to_numpy(), cv=2).mean()
    assert 0.8 < accuracy < 0.99
    tags = items["tags"].fill_null([]).to_list()
    for tag in ("eco-friendly", "travel"):
        auc = cross_val_score(model, features, np.array([tag in t for t in tags]), cv=2, scoring="roc_auc").mean()
        assert 0.8 < auc < 0.995, tag


def test_text_does_not_simply_name_category_and_tag(shop: Shop) -> None:
    items = shop[0].items.drop_nulls(["description", "tags"])
    named = [
        row["category"].lower() in f"{row['title']} {row['description']}".lower()
        for row in items.iter_rows(named=True)
    ]
    assert np.mean(named) < 0.2
    literal = [tag in row["description"].lower() for row in items.iter_rows(named=True) for tag in row["tags"]]
    assert 0.1 < np.mean(literal) < 0.5


def test_text_carries_quality(shop: Shop) -> None:
    tables, truth = shop
    described = tables.items["description"].fill_null("")
    praised = described.str.contains("Superb|flawless|Outstanding|tight tolerances").to_numpy()
    plain = described.str.contains("entry level|plain finish|basics|no frills").to_numpy()
    assert truth.catalogue.quality[praised].mean() > truth.catalogue.quality[plain].mean() + 1


def test_titles_read_like_titles(shop: Shop) -> None:
    titles = shop[0].items["title"]
    assert titles.null_count() == 0
    assert titles.n_unique() > 1000
    assert (titles.str.len_chars() < 100).all()
    assert titles.str.contains(r"^[A-Z]").all()
    assert not titles.str.contains(r"  |\|").any()


# ------------------------------------------------------------------------------------------------- dials


def test_missing_empties_that_share_of_cells() -> None:
    for share in (0.0, 0.3):
        tables, _ = simulate(Dials(**{**SMALL, "num_users": 800, "num_items": 800}, missing=share))
        gaps = [tables.users[c].null_count() / 800 for c in ("age", "gender", "region")]
        gaps += [tables.items[c].null_count() / 800 for c in ("description", "brand", "price", "tags")]
        assert all(abs(gap - share) < 0.06 for gap in gaps), gaps
        assert tables.items["title"].null_count() == tables.items["category"].null_count() == 0


def test_cold_items_appear_only_late(shop: Shop) -> None:
    tables, truth = shop
    cold = {truth.item_ids[i] for i in np.flatnonzero(truth.catalogue.release > 0)}
    assert len(cold) == 60
    seen = tables.interactions.filter(pl.col("item_id").is_in(list(cold)))
    assert seen["item_id"].n_unique() > 40
    assert seen["timestamp"].min() > datetime(2025, 6, 4, tzinfo=UTC)  # type: ignore[operator]
    released = tables.items.filter(pl.col("released") > date(2025, 1, 1))
    assert set(released["item_id"]) == cold
    joined = seen.join(tables.items, on="item_id")
    assert (joined["timestamp"].dt.date() >= joined["released"]).all()
    warm, _ = simulate(Dials(**SMALL, cold_items=0))
    assert (warm.items["released"] < date(2025, 1, 1)).all()


def test_noise_weakens_the_signal() -> None:
    correlations, liking = [], []
    for noise in (0.0, 0.8):
        tables, truth = simulate(Dials(num_users=300, num_items=300, num_interactions=15_000, noise=noise))
        ratings, users, items = rows_of(tables, truth, "rating")
        correlations.append(np.corrcoef(truth.expected_rating(users, items), ratings["rating"])[0, 1])
        _, users, items = rows_of(tables, truth, "view")
        liking.append(truth.utility(users, items).mean())
    assert correlations[0] > correlations[1] + 0.08
    assert liking[0] > liking[1] + 0.5


def test_noise_misfiles_goods() -> None:
    for noise, low, high in ((0.0, 0.0, 0.0), (1.0, 0.1, 0.27)):
        tables, truth = simulate(Dials(**{**SMALL, "num_items": 1000}, noise=noise))
        filed = tables.items["category"].to_numpy()
        wrong = np.mean(filed != np.array(truth.categories)[truth.catalogue.category])
        assert low <= wrong <= high


def category_shift(drift: float) -> float:
    """Total variation distance between the categories of the first and the last third."""
    tables, _ = simulate(Dials(drift=drift, cold_items=0))
    views = tables.interactions.join(tables.items.select("item_id", "category"), on="item_id")
    third = views.height // 3
    early, late = (
        part["category"].value_counts(normalize=True).sort("category")["proportion"].to_numpy()
        for part in (views.head(third), views.tail(third))
    )
    return float(np.abs(early - late).sum() / 2)


def test_drift_moves_preferences_over_time() -> None:
    still, moving = category_shift(0.0), category_shift(2.0)
    assert moving > 2 * still
    assert moving > 0.1
    _, truth = simulate(Dials(**SMALL, drift=0))
    assert truth.utility(3, 4, 0.0) == truth.utility(3, 4, 1.0)
    _, truth = simulate(Dials(**SMALL, drift=1))
    assert truth.utility(3, 4, 0.0) != truth.utility(3, 4, 1.0)


def test_start_and_days_set_the_period() -> None:
    tables, _ = simulate(Dials(**SMALL, start=date(2023, 5, 1), days=30))
    times = tables.interactions["timestamp"].dt.date()
    assert times.min() >= date(2023, 5, 1)  # type: ignore[operator]
    assert date(2023, 5, 28) <= times.max() < date(2023, 5, 31)  # type: ignore[operator]


def test_wrong_dials_are_listed_in_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        Dials.parse({"num_users": 1, "noise": "loud", "nois": 0.1, "start": "soon"})
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("source.options: ")
    for part in ("num_users: Input should be greater than or equal to 2 (got 1)", "noise: ", "(got 'loud')",
                 "nois: unknown dial (known: num_users, num_items", "start: "):  # fmt: skip
        assert part in message
    for seed in (-1, 2**32):
        with pytest.raises(ConfigError, match=r"seed: Input should be (greater|less) than or equal"):
            Dials.parse({"seed": seed})
