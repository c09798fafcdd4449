"""The goods of the simulated shop: what they are, and the texts that a small grammar writes about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtrec.data.sources.shop_words import BRANDS, FILLERS, QUALITY, SHELVES, STYLES, TAGS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CATEGORIES = tuple(SHELVES)
TAG_NAMES = tuple(TAGS)
STYLE_NAMES = tuple(STYLES)
TYPES_PER_CATEGORY = 8
BRAND_DIM = 4


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All goods as arrays of length I (items); T = tags, B = brands."""

    category: Ints
    type: Ints
    """Global product type, category * TYPES_PER_CATEGORY + place in the category."""
    style: Ints
    brand: Ints
    tags_IT: Bools
    quality: Floats
    """About standard normal; partly the brand's."""
    price: Floats
    price_level: Floats
    """Logarithm of the price, standardised within the category."""
    brand_BD: Floats
    """What a brand stands for, in BRAND_DIM dimensions that users like or dislike."""
    popularity: Floats
    """Long-tailed weight with which an item is shown; sums to 1."""
    release: Floats
    """Share of the period after which the item appears; below 0 when it was there before."""
    titles: list[str]
    descriptions: list[str]


def make_catalogue(num_items: int, cold_items: float, rng: np.random.Generator) -> Catalogue:
    """Draw the goods and write their texts.

    Args:
        num_items: how many.
        cold_items: share of items that appear only in the last seventh of the period.
        rng: source of all randomness.
    """
    num_types = len(CATEGORIES) * TYPES_PER_CATEGORY
    size = rng.gamma(4.0, size=num_types)
    extra = rng.choice(num_types, max(0, num_items - num_types), p=size / size.sum())
    type_ = rng.permutation(np.concatenate([rng.permutation(num_types)[:num_items], extra]))
    category = type_ // TYPES_PER_CATEGORY

    brand_quality, brand_price = rng.normal(size=len(BRANDS)), rng.normal(size=len(BRANDS))
    brands_of = np.stack([rng.permutation(len(BRANDS))[:10] for _ in CATEGORIES])
    brand = brands_of[category, np.minimum(rng.geometric(0.25, num_items) - 1, 9)]
    style = (rng.integers(0, 4, num_items) + (rng.random(num_items) < 0.6) * (brand % 4 + 4)) % 4
    quality = 0.6 * brand_quality[brand] + 0.8 * rng.normal(size=num_items)
    tags = _draw_tags(category, rng)

    level = 0.35 * brand_price[brand] + 0.3 * quality + 0.35 * rng.normal(size=num_items)
    median = np.array([shelf.price for shelf in SHELVES.values()])
    price = np.maximum(np.floor(median[category] * np.exp(level)), 1) - 0.01 + rng.choice([0.0, 0.5], num_items)

    rank = np.argsort(np.argsort(-(0.6 * quality + rng.normal(size=num_items))))
    popularity = (rank + 3.0) ** -0.8
    release = rng.random(num_items) - 1
    cold = rng.permutation(num_items)[: round(cold_items * num_items)]
    release[cold] = 6 / 7 + (1 / 8) * rng.random(len(cold))
    popularity[cold] *= 3
    titles, descriptions = _write(type_, style, brand, tags, quality, rng)
    return Catalogue(
        category=category, type=type_, style=style, brand=brand, tags_IT=tags, quality=quality, price=price,
        price_level=level / 0.58, brand_BD=rng.normal(size=(len(BRANDS), BRAND_DIM)),
        popularity=popularity / popularity.sum(), release=release, titles=titles, descriptions=descriptions,
    )  # fmt: skip


def _draw_tags(category: Ints, rng: np.random.Generator) -> Bools:
    """Each item carries one to four tags, mostly the usual ones of its category."""
    chance = np.full((len(CATEGORIES), len(TAG_NAMES)), 0.02)
    for row, shelf in enumerate(SHELVES.values()):
        for place, tag in enumerate(shelf.tags):
            chance[row, TAG_NAMES.index(tag)] = (0.5, 0.45, 0.35, 0.3, 0.2, 0.2)[place]
    score = chance[category] - rng.random((len(category), len(TAG_NAMES)))
    order = np.argsort(-score, axis=1)
    rank = np.argsort(order, axis=1)
    return ((score > 0) & (rank < 4)) | (rank == 0)


def _write(
    type_: Ints, style: Ints, brand: Ints, tags_IT: Bools, quality: Floats, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Titles and descriptions.

    Every sentence may be left out, tags are mostly paraphrased, and some texts mention a tag that the item
    does not carry, so that text predicts category, tags, quality and style well but not perfectly.
    """
    shelves = list(SHELVES.values())
    tiers = np.digitize(quality + 0.3 * rng.normal(size=len(quality)), [-0.6, 0.6])
    titles, descriptions = [], []
    for item in range(len(type_)):
        words = _Words(rng)
        shelf = shelves[type_[item] // TYPES_PER_CATEGORY]
        noun = words.pick(shelf.types[type_[item] % TYPES_PER_CATEGORY].split("|"))
        if words.chance(0.12):
            noun = words.pick(("starter set", "kit", "special edition", "set of two"))
        styles = STYLES[STYLE_NAMES[style[item]]]
        titles.append(_title(words, shelf.materials, shelf.uses, noun, BRANDS[brand[item]], words.pick(styles)))
        carried = [TAG_NAMES[i] for i in np.flatnonzero(tags_IT[item])]
        if words.chance(0.08):
            carried.append(words.pick(TAG_NAMES))
        descriptions.append(_description(words, shelf.hints, shelf.uses, carried, styles, QUALITY[tiers[item]]))
    return titles, descriptions


class _Words:
    """Cheap random choices: one block of uniform numbers per item."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._numbers = iter(rng.random(48).tolist())

    def chance(self, probability: float) -> bool:
        return next(self._numbers) < probability

    def pick(self, options: tuple[str, ...] | list[str]) -> str:
        return options[int(next(self._numbers) * len(options))]


def _title(
    words: _Words, materials: tuple[str, ...], uses: tuple[str, ...], noun: str, brand: str, style: str
) -> str:
    parts = [style] if words.chance(0.5) else []
    parts += [words.pick(materials)] if words.chance(0.6) else []
    text = " ".join([*parts, noun])
    if words.chance(0.55):
        text = f"{brand} {text}"
    if words.chance(0.3):
        text = f"{text} for {words.pick(uses)}"
    return text[0].upper() + text[1:]


def _description(
    words: _Words,
    hints: tuple[str, ...],
    uses: tuple[str, ...],
    tags: list[str],
    styles: tuple[str, ...],
    quality: tuple[str, ...],
) -> str:
    phrases = [words.pick(TAGS[tag]) for tag in tags if words.chance(0.85)]
    sentences = []
    if phrases:
        text = ", ".join(phrases[:-1]) + (" and " if len(phrases) > 1 else "") + phrases[-1]
        sentences.append(text[0].upper() + text[1:] + ".")
    if words.chance(0.7):
        sentences.append(words.pick(hints))
    if words.chance(0.5):
        sentences.append(f"Made for {words.pick(uses)}.")
    if words.chance(0.75):
        sentences.append(words.pick(quality))
    if words.chance(0.4):
        sentences.append(f"A {words.pick(styles)} look.")
    if words.chance(0.5) or not sentences:
        sentences.append(words.pick(FILLERS))
    turn = int(next(words._numbers) * len(sentences))
    return " ".join(sentences[turn:] + sentences[:turn])
