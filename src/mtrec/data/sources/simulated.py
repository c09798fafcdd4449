"""A simulated shop whose truth is known, so that tests can check what learning finds.

Users have latent preferences over categories, tags, styles, brands, price and quality that depend partly on
age, gender and region. One utility, computed from them, decides what they view, put in the cart, buy and how
they rate it. The same dials give the same bytes. The goods are in `shop_catalogue`, the sessions in
`shop_behaviour`, the words in `shop_words`.

Shapes: U users, I items, C categories, T tags, S styles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field, ValidationError

from mtrec.config import Frozen, Seed
from mtrec.data.contract import Tables
from mtrec.data.sources.shape import shape_tables
from mtrec.data.sources.shop_behaviour import EVENT_NAMES, Events, Shop, expected_rating, simulate_sessions
from mtrec.data.sources.shop_catalogue import (
    BRAND_DIM,
    CATEGORIES,
    STYLE_NAMES,
    TAG_NAMES,
    Catalogue,
    Floats,
    Ints,
    make_catalogue,
)
from mtrec.data.sources.shop_words import BRANDS, GENDERS, REGIONS, SHELVES
from mtrec.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=0.9)]


class Dials(Frozen):
    """The settings of the simulator: `source.options` of a scenario of type `simulated`."""

    num_users: Annotated[int, Field(ge=2)] = 1500
    """How many users."""
    num_items: Annotated[int, Field(ge=12)] = 1200
    """How many items."""
    num_interactions: Annotated[int, Field(ge=1)] = 60_000
    """At least so many events; the last session is kept whole."""
    seed: Seed = 0
    """Another seed makes another shop."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of choices that ignore preferences; also widens ratings and misfiles a fifth as many items."""
    missing: Share = 0.03
    """Share of empty cells in age, gender, region, description, brand, price and tags."""
    cold_items: Share = 0.05
    """Share of items that only appear in the last seventh of the period."""
    drift: Annotated[float, Field(ge=0, le=5)] = 0.3
    """How far category preferences move over the period, in standard deviations."""
    start: date = date(2025, 1, 1)
    """First day of the period."""
    days: Annotated[int, Field(ge=1, le=3650)] = 181
    """Length of the period."""

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Dials:
        """Check dials given as plain data.

        Raises:
            ConfigError: one line that lists every wrong dial, and the known names if one is unknown.
        """
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            lines = []
            for item in error.errors():
                name = ".".join(map(str, item["loc"]))
                unknown = f"unknown dial (known: {', '.join(cls.model_fields)})"
                said = unknown if item["type"] == "extra_forbidden" else f"{item['msg']} (got {item['input']!r})"
                lines.append(f"{name}: {said}")
            raise ConfigError(f"source.options: {'; '.join(lines)}") from error


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The known preferences. Row u is user `user_ids[u]`, row i is item `item_ids[i]`."""

    user_ids: list[str]
    item_ids: list[str]
    categories: tuple[str, ...]
    tags: tuple[str, ...]
    category_UC: Floats
    """Liking of each category at the start."""
    drift_UC: Floats
    """How far each liking moves until the end."""
    tag_UT: Floats
    style_US: Floats
    price_U: Floats
    """The price level that a user likes best, within any category."""
    quality_U: Floats
    """How much a user cares for quality, above 0."""
    brand_UD: Floats
    rating_bias_U: Floats
    catalogue: Catalogue
    centre: float = 0.0
    spread: float = 1.0

    def utility(self, user: Ints | int, item: Ints | int, when: Floats | float = 0.0) -> Floats:
        """How much users like items; about standard normal over random pairs.

        Args:
            user: row numbers of users.
            item: row numbers of items; the three arguments broadcast.
            when: share of the period that has passed, 0 to 1.
        """
        goods = self.catalogue
        user, item, when = np.broadcast_arrays(np.asarray(user), np.asarray(item), np.asarray(when, dtype=float))
        category = goods.category[item]
        carried = goods.tags_IT[item]
        tag = np.einsum("...t,...t->...", carried, self.tag_UT[user]) / np.sqrt(carried.sum(-1))
        brand = np.einsum("...d,...d->...", goods.brand_BD[goods.brand[item]], self.brand_UD[user])
        raw = (
            self.category_UC[user, category]
            + when * self.drift_UC[user, category]
            + 0.7 * tag
            + 0.4 * self.style_US[user, goods.style[item]]
            + 0.5 * self.quality_U[user] * goods.quality[item]
            - 0.3 * (goods.price_level[item] - self.price_U[user]) ** 2
            + 0.25 * brand
        )
        return (raw - self.centre) / self.spread

    def expected_rating(self, user: Ints | int, item: Ints | int, when: Floats | float = 0.0) -> Floats:
        """The mean of the stars, before rounding and clipping to 1…5."""
        return expected_rating(self.utility(user, item, when), self.rating_bias_U[np.asarray(user)])


def simulate(dials: Dials) -> tuple[Tables, Truth]:
    """Draw a shop, its users and what happened in it.

    Args:
        dials: sizes, noise and seed.

    Returns:
        The three tables, and the truth behind them.
    """
    seeds = np.random.SeedSequence(dials.seed).spawn(4)
    goods_rng, users_rng, events_rng, dirt_rng = (np.random.default_rng(seed) for seed in seeds)
    goods = make_catalogue(dials.num_items, dials.cold_items, goods_rng)
    people = _draw_people(dials.num_users, users_rng)
    truth = _draw_truth(dials, people, goods, users_rng)
    activity = users_rng.lognormal(0.0, 0.9, dials.num_users)
    late = users_rng.random(dials.num_users) < 0.4
    joined = np.where(late, 0.95 * users_rng.random(dials.num_users), 0.0)

    def mood(users: Ints, when: Floats) -> Floats:
        return 1.1 * (truth.category_UC[users] + when[:, None] * truth.drift_UC[users])

    shop = Shop(
        catalogue=goods, activity=activity / activity.sum(), joined=joined, rating_bias=truth.rating_bias_U,
        mood=mood, utility=truth.utility, noise=dials.noise, days=float(dials.days),
    )  # fmt: skip
    events = simulate_sessions(shop, dials.num_interactions, events_rng)
    users = _with_gaps(_users_table(truth, people), ("age", "gender", "region"), dials.missing, dirt_rng)
    items = _items_table(truth, dials, dirt_rng)
    items = _with_gaps(items, ("description", "brand", "price", "tags"), dials.missing, dirt_rng)
    return shape_tables(items, _interactions_table(truth, events, dials), users), truth


# ------------------------------------------------------------------------------------------------- users


@dataclass(frozen=True, kw_only=True)
class _People:
    age: Ints
    gender: Ints
    region: Ints


def _draw_people(num: int, rng: np.random.Generator) -> _People:
    young = rng.random(num) < 0.55
    age = np.where(young, rng.normal(28, 6, num), rng.normal(50, 12, num))
    return _People(
        age=np.clip(np.rint(age), 16, 88).astype(np.int64),
        gender=rng.choice(len(GENDERS), num, p=list(GENDERS.values())),
        region=rng.choice(len(REGIONS), num, p=list(REGIONS.values())),
    )


def _draw_truth(dials: Dials, people: _People, goods: Catalogue, rng: np.random.Generator) -> Truth:
    """Preferences: a part that the attributes explain, and a personal part."""
    num, num_categories = dials.num_users, len(CATEGORIES)
    fond_age = np.array([shelf.age for shelf in SHELVES.values()])
    by_age = 0.8 - ((people.age[:, None] - fond_age[None, :]) / 18.0) ** 2 / 2
    category = (
        0.6 * np.maximum(by_age, -2.0)
        + 0.5 * rng.normal(size=(len(GENDERS), num_categories))[people.gender]
        + 0.4 * rng.normal(size=(len(REGIONS), num_categories))[people.region]
        + 0.8 * rng.normal(size=(num, num_categories))
    )
    trend = rng.normal(size=num_categories)
    drift = dials.drift * (0.8 * trend + 0.6 * rng.normal(size=(num, num_categories)))
    tag_by_gender = rng.normal(size=(len(GENDERS), len(TAG_NAMES)))
    tag = 0.4 * tag_by_gender[people.gender] + 0.9 * rng.normal(size=(num, len(TAG_NAMES)))
    truth = Truth(
        user_ids=[f"u{i:05d}" for i in range(1, num + 1)],
        item_ids=[f"i{i:05d}" for i in range(1, dials.num_items + 1)],
        categories=CATEGORIES,
        tags=TAG_NAMES,
        category_UC=category,
        drift_UC=drift,
        tag_UT=tag,
        style_US=rng.normal(size=(num, len(STYLE_NAMES))),
        price_U=np.clip((people.age - 40) / 25.0, -1, 1) * 0.5 + 0.7 * rng.normal(size=num),
        quality_U=rng.uniform(0.5, 1.5, num),
        brand_UD=rng.normal(size=(num, BRAND_DIM)) / np.sqrt(BRAND_DIM),
        rating_bias_U=0.35 * rng.normal(size=num),
        catalogue=goods,
    )
    sample = truth.utility(rng.integers(0, num, 20_000), rng.integers(0, dials.num_items, 20_000))
    return replace(truth, centre=float(sample.mean()), spread=float(sample.std()))


# ------------------------------------------------------------------------------------------------- tables


def _users_table(truth: Truth, people: _People) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": truth.user_ids,
            "age": people.age,
            "gender": [list(GENDERS)[i] for i in people.gender],
            "region": [list(REGIONS)[i] for i in people.region],
        }
    )


def _items_table(truth: Truth, dials: Dials, rng: np.random.Generator) -> pl.DataFrame:
    """The goods as the shop lists them; a few are filed under a wrong category."""
    goods = truth.catalogue
    num = len(truth.item_ids)
    wrong = rng.random(num) < dials.noise / 5
    filed = np.where(wrong, rng.integers(0, len(CATEGORIES), num), goods.category)
    days = np.where(goods.release < 0, goods.release * 365, goods.release * dials.days)
    return pl.DataFrame(
        {
            "item_id": truth.item_ids,
            "title": goods.titles,
            "description": goods.descriptions,
            "category": [CATEGORIES[i] for i in filed],
            "brand": [BRANDS[i] for i in goods.brand],
            "price": np.round(goods.price, 2),
            "tags": [[TAG_NAMES[i] for i in np.flatnonzero(row)] for row in goods.tags_IT],
            "released": [dials.start + timedelta(days=int(np.floor(day))) for day in days],
        }
    )


def _interactions_table(truth: Truth, events: Events, dials: Dials) -> pl.DataFrame:
    start = datetime(dials.start.year, dials.start.month, dials.start.day, tzinfo=UTC)
    moment = pl.lit(start) + pl.duration(seconds=pl.col("seconds"))
    return pl.DataFrame(
        {
            "user_id": pl.Series(truth.user_ids).gather(events["user"]),
            "item_id": pl.Series(truth.item_ids).gather(events["item"]),
            "event": pl.Series(EVENT_NAMES).gather(events["event"]),
            "rating": pl.Series(events["stars"].copy(), nan_to_null=True),
            "seconds": events["seconds"].astype(np.int64),
        }
    ).select("user_id", "item_id", "event", "rating", moment.cast(pl.Datetime("us", "UTC")).alias("timestamp"))


def _with_gaps(
    frame: pl.DataFrame, columns: tuple[str, ...], share: float, rng: np.random.Generator
) -> pl.DataFrame:
    """Empty a share of the cells of each column."""
    gaps = rng.random((frame.height, len(columns))) < share
    return frame.with_columns(
        pl.when(~pl.Series(gaps[:, place])).then(pl.col(name)).alias(name) for place, name in enumerate(columns)
    )
