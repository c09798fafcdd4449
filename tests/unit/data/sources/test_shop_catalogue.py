import numpy as np
import pytest

from mtrec.data.sources.shop_catalogue import CATEGORIES, TAG_NAMES, Catalogue, make_catalogue
from mtrec.data.sources.shop_words import SHELVES, STYLES, TAGS


@pytest.fixture(scope="module")
def goods() -> Catalogue:
    return make_catalogue(2000, 0.1, np.random.default_rng(0))


def test_every_category_and_type_has_goods(goods: Catalogue) -> None:
    assert set(goods.category) == set(range(len(CATEGORIES)))
    assert set(goods.type) == set(range(8 * len(CATEGORIES)))
    assert (goods.type // 8 == goods.category).all()


def test_items_carry_one_to_four_tags_mostly_of_their_category(goods: Catalogue) -> None:
    counts = goods.tags_IT.sum(axis=1)
    assert counts.min() >= 1
    assert counts.max() == 4
    usual = [
        TAG_NAMES[tag] in SHELVES[CATEGORIES[goods.category[item]]].tags
        for item, tag in zip(*np.nonzero(goods.tags_IT), strict=True)
    ]
    assert 0.75 < np.mean(usual) < 0.98


def test_prices_vary_around_the_categorys_median(goods: Catalogue) -> None:
    assert goods.price.min() > 0
    for row, shelf in enumerate(SHELVES.values()):
        median = np.median(goods.price[goods.category == row])
        assert 0.6 * shelf.price < median < 1.6 * shelf.price
    assert abs(goods.price_level.std() - 1) < 0.2
    assert np.corrcoef(goods.price_level, goods.quality)[0, 1] > 0.2, "better goods cost more"


def test_popularity_is_long_tailed_and_release_follows_the_dial(goods: Catalogue) -> None:
    assert goods.popularity.sum() == pytest.approx(1)
    assert np.sort(goods.popularity)[-200:].sum() > 0.35
    assert (goods.release > 0).sum() == 200
    assert (goods.release[goods.release > 0] > 6 / 7).all()
    assert (goods.release < 1).all()


def test_few_items_still_spread_over_categories() -> None:
    goods = make_catalogue(12, 0.0, np.random.default_rng(1))
    assert len(goods.titles) == len(goods.descriptions) == 12
    assert len(set(goods.category)) > 3


def test_the_vocabulary_is_complete() -> None:
    for name, shelf in SHELVES.items():
        assert len(shelf.types) == 8, name
        assert len(set(shelf.tags)) == 6, name
        assert set(shelf.tags) <= set(TAGS), name
        assert len(shelf.hints) == len(shelf.uses) == len(shelf.materials) == 5, name
        assert not any(name.lower() in hint.lower() for hint in shelf.hints), name
    assert all(len(phrases) == 4 for phrases in TAGS.values())
    assert all(len(words) == 4 for words in STYLES.values())
