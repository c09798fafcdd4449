import numpy as np

from mtrec.data.sources.shop_behaviour import (
    CART,
    EVENT,
    PURCHASE,
    RATING,
    VIEW,
    Events,
    Shop,
    _rate_once,
    expected_rating,
    simulate_sessions,
)
from mtrec.data.sources.shop_catalogue import CATEGORIES, Floats, Ints, make_catalogue


def make_shop(liked: int, noise: float = 0.0, num_users: int = 50) -> Shop:
    """A shop where everybody wants one category and likes the quality of goods."""
    goods = make_catalogue(400, 0.1, np.random.default_rng(0))

    def mood(users: Ints, when: Floats) -> Floats:
        wish = np.zeros((len(users), len(CATEGORIES)))
        wish[:, liked] = 4.0
        return wish

    def utility(user: Ints, item: Ints, when: Floats) -> Floats:
        return np.broadcast_arrays(goods.quality[item], when)[0].astype(float)

    return Shop(
        catalogue=goods, activity=np.full(num_users, 1 / num_users), joined=np.zeros(num_users),
        rating_bias=np.zeros(num_users), mood=mood, utility=utility, noise=noise, days=100.0,
    )  # fmt: skip


def run(shop: Shop, num_events: int = 5000) -> Events:
    return simulate_sessions(shop, num_events, np.random.default_rng(7))


def test_moods_choose_the_category_and_noise_ignores_them() -> None:
    shop = make_shop(liked=3)
    events = run(shop)
    views = events[events["event"] == VIEW]
    assert np.mean(shop.catalogue.category[views["item"]] == 3) > 0.7
    wild = run(make_shop(liked=3, noise=1.0))
    wild = wild[wild["event"] == VIEW]
    assert np.mean(shop.catalogue.category[wild["item"]] == 3) < 0.2


def test_utility_chooses_views_carts_and_purchases() -> None:
    shop = make_shop(liked=0)
    events = run(shop)
    quality = [
        shop.catalogue.quality[events["item"][events["event"] == kind]].mean() for kind in (VIEW, CART, PURCHASE)
    ]
    assert shop.catalogue.quality.mean() < quality[0] < quality[1] < quality[2]


def test_at_least_as_many_events_as_wanted_and_hardly_more() -> None:
    for wanted in (1, 100, 5000):
        events = run(make_shop(liked=0), wanted)
        assert wanted <= len(events) < wanted + 90
        assert (np.diff(events["seconds"]) >= 0).all()
        assert events["seconds"].min() >= 0
        assert events["seconds"].max() < 100 * 86_400


def test_nothing_is_seen_before_its_release() -> None:
    shop = make_shop(liked=0)
    events = run(shop, 20_000)
    release = shop.catalogue.release[events["item"]]
    late = release > 0
    assert late.any()
    assert (events["seconds"][late] + 1 >= release[late] * 100 * 86_400).all()


def test_the_same_item_is_not_viewed_twice_in_a_row() -> None:
    events = run(make_shop(liked=0), 20_000)
    views = events[events["event"] == VIEW]
    views = views[np.lexsort((views["seconds"], views["session"], views["user"]))]
    same = (views["item"][1:] == views["item"][:-1]) & (views["session"][1:] == views["session"][:-1])
    same &= views["user"][1:] == views["user"][:-1]
    assert same.mean() < 0.01


def test_only_the_first_rating_of_a_pair_counts() -> None:
    rows = [(0, 1, 5), (0, 1, 5), (0, 2, 5), (0, 1, 6)]
    events = np.array([(s, u, i, RATING, 10.0 * n, n + 1.0) for n, (s, u, i) in enumerate(rows)], dtype=EVENT)
    events = np.concatenate([events, np.array([(0, 1, 5, VIEW, 0.0, np.nan)], dtype=EVENT)])
    kept, rated = _rate_once(events, np.array([2 * 10 + 5]), num_items=10)
    assert kept[["user", "item", "event"]].tolist() == [(1, 5, RATING), (1, 6, RATING), (1, 5, VIEW)]
    assert kept["stars"][0] == 1.0
    assert sorted(rated.tolist()) == [15, 16, 25]


def test_expected_rating() -> None:
    assert expected_rating(np.array([1.0]), np.array([0.25]))[0] == 2.3 + 1.05 + 0.25
