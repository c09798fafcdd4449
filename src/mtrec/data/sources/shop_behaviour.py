"""How the users of the simulated shop behave: sessions of views, carts, purchases and ratings.

Shapes: S running sessions, K candidates, C categories. `when` is time as a share of the period, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrec.data.sources.shop_catalogue import CATEGORIES, TYPES_PER_CATEGORY, Bools, Catalogue, Floats, Ints

VIEW, CART, PURCHASE, RATING = range(4)
EVENT_NAMES = ("view", "cart", "purchase", "rating")
EVENT = np.dtype(
    [("session", "i8"), ("user", "i8"), ("item", "i8"), ("event", "i8"), ("seconds", "f8"), ("stars", "f8")]
)
"""One event; seconds since the start of the period, stars 1 to 5 for ratings and NaN for the rest."""

Events = npt.NDArray[np.void]
Utility = Callable[[Ints, Ints, Floats], Floats]
"""(users, items, when) → utility, shapes broadcast; about standard normal over random pairs."""

_MAX_STEPS = 20
_CANDIDATES = 6
_BATCH_SESSIONS = 20_000
_DAY = 86_400.0
_HOURS = np.array([1, 1, 1, 1, 1, 1, 2, 4, 5, 6, 6, 7, 8, 7, 6, 6, 7, 8, 10, 13, 15, 13, 8, 3], dtype=np.float64)
"""Relative number of sessions that begin in each hour of the day."""


@dataclass(frozen=True, kw_only=True)
class Shop:
    """Everything that decides what happens in a session."""

    catalogue: Catalogue
    activity: Floats
    """Each user's share of all sessions; sums to 1."""
    joined: Floats
    """When each user first appears, as a share of the period."""
    rating_bias: Floats
    mood: Callable[[Ints, Floats], Floats]
    """(users S, when S) → S × C, the unnormalised log-probability of browsing each category."""
    utility: Utility
    noise: float
    """Share of choices that ignore preferences."""
    days: float


def simulate_sessions(shop: Shop, num_events: int, rng: np.random.Generator) -> Events:
    """Run sessions until there are at least `num_events` events; the last session is kept whole.

    A session begins in a category that suits the user. Each further view stays with the product type, moves
    within the category, to a companion product (mostly after a cart or purchase) or to another category.
    Shown are a few popular candidates, taken is one by utility. Utility decides cart, purchase and rating too.
    A user rates an item once.

    Returns:
        Events sorted by time, seconds whole.
    """
    shelf = _Shelf(shop.catalogue)
    kept: list[Events] = []
    rated = np.empty(0, dtype=np.int64)
    have = 0
    while have < num_events:
        wanted = min(_BATCH_SESSIONS, max(50, (num_events - have) // 7))
        everyone = np.empty(0, dtype=np.int64) if kept else rng.permutation(len(shop.activity))
        more = rng.choice(len(shop.activity), max(0, wanted - len(everyone)), p=shop.activity)
        events = _Sessions(shop, shelf, np.concatenate([everyone, more]), rng).run()
        events = events[events["seconds"] < shop.days * _DAY]
        events, rated = _rate_once(events, rated, len(shop.catalogue.type))
        reached = np.cumsum(np.bincount(events["session"]))
        last = int(np.searchsorted(reached, num_events - have))
        kept.append(events[events["session"] <= last])
        have += len(kept[-1])
    result = np.concatenate(kept)
    result["seconds"] = np.floor(result["seconds"])
    return result[np.lexsort((result["event"], result["item"], result["user"], result["seconds"]))]


def expected_rating(utility: Floats, rating_bias: Floats) -> Floats:
    """The mean of a user's stars before rounding and clipping to 1…5."""
    return 2.3 + 1.05 * utility + rating_bias


def _rate_once(events: Events, rated: Ints, num_items: int) -> tuple[Events, Ints]:
    """Drop ratings of pairs in `rated` or rated earlier in `events`; return the rest and all rated pairs."""
    places = np.flatnonzero(events["event"] == RATING)
    pairs = events["user"][places] * num_items + events["item"][places]
    _, first = np.unique(pairs, return_index=True)
    fresh = np.zeros(len(places), dtype=bool)
    fresh[first] = True
    fresh &= ~np.isin(pairs, rated)
    return np.delete(events, places[~fresh]), np.concatenate([rated, pairs[fresh]])


class _Shelf:
    """Draws items by popularity from a product type, a category or everything, in vectorised form."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.order = np.argsort(catalogue.type, kind="stable")
        self.bounds = np.concatenate([[0.0], np.cumsum(catalogue.popularity[self.order])])
        num_types = len(CATEGORIES) * TYPES_PER_CATEGORY
        starts = np.searchsorted(catalogue.type[self.order], np.arange(num_types + 1))
        self.type_bounds = self.bounds[starts]
        self.category_bounds = self.type_bounds[::TYPES_PER_CATEGORY]
        self.old = np.flatnonzero(catalogue.release < 0)
        self.old_bounds = np.cumsum(catalogue.popularity[self.old])

    def draw(self, category: Ints, type_: Ints, within_type: Bools, rng: np.random.Generator) -> Ints:
        """S × K items from each row's type, or from its category where that is wanted or the type is empty."""
        low, high = self.type_bounds[type_], self.type_bounds[type_ + 1]
        wide = ~within_type | (high <= low)
        low = np.where(wide, self.category_bounds[category], low)
        high = np.where(wide, self.category_bounds[category + 1], high)
        low, high = np.where(high <= low, 0.0, low), np.where(high <= low, self.bounds[-1], high)
        points = low[:, None] + (high - low)[:, None] * rng.random((len(category), _CANDIDATES))
        places = np.searchsorted(self.bounds, points, side="right") - 1
        return self.order[np.clip(places, 0, len(self.order) - 1)]

    def draw_old(self, count: int, rng: np.random.Generator) -> Ints:
        """Items that were there from the start, by popularity."""
        places = np.searchsorted(self.old_bounds, rng.random(count) * self.old_bounds[-1], side="right")
        return self.old[np.minimum(places, len(self.old) - 1)]


class _Sessions:
    """One batch of sessions that advance together, one view per step."""

    def __init__(self, shop: Shop, shelf: _Shelf, users: Ints, rng: np.random.Generator) -> None:
        self.shop, self.shelf, self.rng, self.users = shop, shelf, rng, users
        self.seconds = self._starts(shop.joined[users])
        self.steps = np.minimum(rng.geometric(0.17, len(users)) + 1, _MAX_STEPS)
        self.category = self._browse(np.arange(len(users)))
        self.type = self.category * TYPES_PER_CATEGORY
        self.within_type = np.zeros(len(users), dtype=bool)
        self.last = np.full(len(users), -1)
        self.wanted = np.zeros(len(users), dtype=bool)
        """Whether the last item went into the cart."""

    def run(self) -> Events:
        """All events of the batch, in no particular order."""
        parts = []
        for step in range(_MAX_STEPS):
            now = np.flatnonzero(self.steps > step)
            if step:
                self._move(now)
            item = self._choose(now)
            self.last[now] = item
            self.type[now] = self.shop.catalogue.type[item]
            self.category[now] = self.shop.catalogue.category[item]
            parts += self._react(now, item)
        return np.concatenate(parts)

    def _when(self, now: Ints) -> Floats:
        return self.seconds[now] / (self.shop.days * _DAY)

    def _whim(self, now: Ints) -> Bools:
        """Who ignores all preferences this time."""
        return self.rng.random(len(now)) < self.shop.noise

    def _starts(self, joined: Floats) -> Floats:
        """Seconds since the start: a day after the user joined, an hour by the daily rhythm."""
        days, num = self.shop.days, len(joined)
        moment = (joined + (1 - joined) * self.rng.random(num)) * days
        hour = self.rng.choice(24, num, p=_HOURS / _HOURS.sum()) + self.rng.random(num)
        rhythmic = (np.floor(moment) + hour / 24) * _DAY
        possible = (rhythmic >= joined * days * _DAY) & (rhythmic < days * _DAY)
        return np.where(possible, rhythmic, moment * _DAY)

    def _browse(self, now: Ints) -> Ints:
        """A category for each session, by the user's mood or on a whim."""
        mood = self.shop.mood(self.users[now], self._when(now))
        chosen = np.argmax(mood + self.rng.gumbel(size=mood.shape), axis=1)
        return np.where(self._whim(now), self.rng.integers(0, mood.shape[1], len(now)), chosen)

    def _move(self, now: Ints) -> None:
        """Decide where each running session looks next."""
        companion = self.rng.random(len(now)) < np.where(self.wanted[now], 0.7, 0.12)
        roll = self.rng.random(len(now))
        jump = ~companion & ((roll < 0.12) | self._whim(now))
        same = ~companion & ~jump & (roll < 0.62)
        place = self.type[now] % TYPES_PER_CATEGORY
        following = self.type[now] - place + (place + 1) % TYPES_PER_CATEGORY
        self.type[now] = np.where(companion, following, self.type[now])
        self.within_type[now] = companion | same
        self.category[now[jump]] = self._browse(now[jump])

    def _choose(self, now: Ints) -> Ints:
        """One item per session: from where it looks, else from the whole category, else what was always there."""
        chosen, found = self._pick(now, self.within_type[now])
        retry = np.flatnonzero(~found)
        chosen[retry], found[retry] = self._pick(now[retry], np.zeros(len(retry), dtype=bool))
        chosen[~found] = self.shelf.draw_old(int((~found).sum()), self.rng)
        return chosen

    def _pick(self, now: Ints, within_type: Bools) -> tuple[Ints, Bools]:
        """One of K popular candidates by utility plus Gumbel noise, and whether any of them was possible.

        The item just seen and items not released yet are not possible.
        """
        users, when = self.users[now], self._when(now)
        items = self.shelf.draw(self.category[now], self.type[now], within_type, self.rng)
        score = 1.5 * self.shop.utility(users[:, None], items, when[:, None])
        score = np.where(self._whim(now)[:, None], 0.0, score) + self.rng.gumbel(size=items.shape)
        hidden = (items == self.last[now, None]) | (self.shop.catalogue.release[items] > when[:, None])
        score[hidden] = -np.inf
        rows, best = np.arange(len(now)), np.argmax(score, axis=1)
        return items[rows, best], np.isfinite(score[rows, best])

    def _react(self, now: Ints, item: Ints) -> list[Events]:
        """View, then perhaps cart, purchase and rating; moves the sessions' clocks on."""
        rng, num = self.rng, len(now)
        utility = self.shop.utility(self.users[now], item, self._when(now))
        felt = np.where(self._whim(now), 0.0, utility)
        events = [self._events(VIEW, now, item)]

        cart = rng.random(num) < _logistic(-2.7 + 1.4 * felt)
        self.seconds[now] += 15 + rng.exponential(60, num)
        events.append(self._events(CART, now[cart], item[cart]))
        self.seconds[now] += np.where(cart, 10 + rng.exponential(30, num), 0.0)

        buy = cart & (rng.random(num) < _logistic(-0.2 + 0.8 * felt))
        events.append(self._events(PURCHASE, now[buy], item[buy]))
        self.seconds[now] += np.where(buy, 5 + rng.exponential(45, num), 0.0)

        rate = buy & (rng.random(num) < 0.75)
        rating = self._events(RATING, now[rate], item[rate])
        rating["seconds"] += _DAY * (1 + rng.exponential(4, len(rating)))
        mean = expected_rating(utility[rate], self.shop.rating_bias[self.users[now[rate]]])
        rating["stars"] = np.clip(np.rint(mean + (0.3 + self.shop.noise) * rng.normal(size=len(mean))), 1, 5)
        self.wanted[now] = cart
        return [*events, rating]

    def _events(self, event: int, now: Ints, item: Ints) -> Any:
        rows = np.empty(len(now), dtype=EVENT)
        rows["session"], rows["user"], rows["item"] = now, self.users[now], item
        rows["event"], rows["seconds"], rows["stars"] = event, self.seconds[now], np.nan
        return rows


def _logistic(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))
