"""The catalogue: latent attributes of items, their brands, sellers, prices, quality, popularity and listing times."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onesearch.market.market_settings import MarketSettings
from onesearch.market.market_vocabulary import SLOTS, MarketVocabulary, draw_column, invent_names
from onesearch.market.word_tables import attribute_figures

TASTES = 8
US_PER_DAY = 86_400_000_000
_FIRST_MODEL = 4


@dataclass(frozen=True)
class MarketCatalogue:
    """What is true of every item, whether its listing says so or not (N items, V values, brands and series included).

    Attributes:
        types: product type, int16 [N]; leaves: leaf category, int16 [N].
        values: latent attribute values by slot (``vocabulary.SLOTS``), int32 [N, 16], -1 for none.
        models: model number, int32 [N]; items of a model share brand and type.
        sellers: int32 [N]; seller_emerging: bool [sellers].
        price: float64 [N]; price_level: standardised log price within the type, float32 [N].
        quality: float32 [N], standard normal.
        taste: direction of taste, float32 [N, 8].
        log_popularity: what the shop's popularity counter would show in the long run, float32 [N].
        listed: microseconds since 1970, int64 [N].
        value_names: [V], value_type: attribute type of each value, [V].
    """

    types: NDArray[np.int16]
    leaves: NDArray[np.int16]
    values: NDArray[np.int32]
    models: NDArray[np.int32]
    sellers: NDArray[np.int32]
    seller_emerging: NDArray[np.bool_]
    price: NDArray[np.float64]
    price_level: NDArray[np.float32]
    quality: NDArray[np.float32]
    taste: NDArray[np.float32]
    log_popularity: NDArray[np.float32]
    listed: NDArray[np.int64]
    value_names: list[str]
    value_type: list[str]

    def __len__(self) -> int:
        return len(self.types)

    @property
    def first_audience(self) -> int:
        """Number of the first audience value; the others follow."""
        return self.value_type.index("Audience")


class ItemsByType:
    """Draws items of product types in proportion to popularity ^ ``exponent``."""

    def __init__(self, catalogue: MarketCatalogue, n_types: int, exponent: float) -> None:
        self._items = np.argsort(catalogue.types, kind="stable")
        weight = np.exp(exponent * catalogue.log_popularity.astype(np.float64))[self._items]
        self._mass = np.concatenate([[0.0], np.cumsum(weight)])
        self._first = np.searchsorted(catalogue.types[self._items], np.arange(n_types + 1))
        self.stocked = np.diff(self._first) > 0

    def draw(self, types: NDArray[np.integer], u: NDArray[np.floating]) -> NDArray[np.int64]:
        """An item of each type [n] by u in [0, 1), [n]; of any type where the type has no item."""
        first = np.where(self.stocked[types], self._first[types], 0)
        last = np.where(self.stocked[types], self._first[types + 1], len(self._items))
        mass = self._mass[first] + u * (self._mass[last] - self._mass[first])
        place = np.searchsorted(self._mass, mass, side="right") - 1
        return np.asarray(self._items[np.clip(place, first, last - 1)], np.int64)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def type_weights(vocabulary: MarketVocabulary, rng: np.random.Generator) -> NDArray[np.float64]:
    """Share of items (and of demand) per product type: Zipf over leaves and over the types of a leaf, [T]."""
    n_leaves = len(vocabulary.leaf_names)
    # Which leaf is popular is drawn; within a leaf the first type is.
    leaf = (rng.permutation(n_leaves) + 4.0) ** -0.7
    first = np.searchsorted(vocabulary.type_leaf, np.arange(n_leaves))
    rank = np.arange(len(vocabulary.type_leaf)) - first[vocabulary.type_leaf] + 1
    weights = leaf[vocabulary.type_leaf] * rank**-0.6
    return np.asarray(weights / weights.sum(), np.float64)


def _brands(
    config: MarketSettings, vocabulary: MarketVocabulary, leaves: NDArray[np.int16], rng: np.random.Generator
) -> tuple[NDArray[np.int64], int]:
    """Brand of each item, int64 [N], and the number of brands: brands keep to a department and prefer some leaves."""
    n_departments = int(vocabulary.leaf_department.max()) + 1
    per_department = max(8, round(config.items / config.catalogue.items_per_brand / n_departments))
    brand = np.empty(len(leaves), np.int64)
    # Large and small brands; a third of them is at home in a leaf, the others are rare there.
    base = np.arange(1, per_department + 1) ** -0.8
    for leaf in range(len(vocabulary.leaf_names)):
        rows = np.flatnonzero(leaves == leaf)
        weight = base * np.where(rng.random(per_department) < 0.35, 1.0, 0.06)
        chosen = rng.choice(per_department, len(rows), p=weight / weight.sum())
        brand[rows] = int(vocabulary.leaf_department[leaf]) * per_department + chosen
    return brand, per_department * n_departments


def build_catalogue(
    config: MarketSettings, vocabulary: MarketVocabulary, start: int, reserved: set[str]
) -> MarketCatalogue:
    """Draw a catalogue; ``start`` is the first microsecond of the period, ``reserved`` words no brand may be called."""
    rng = np.random.default_rng([config.seed, 2])
    n, settings = config.items, config.catalogue
    weights = type_weights(vocabulary, np.random.default_rng([config.seed, 3]))
    # Product type, leaf and brand of each item, [N].
    types = rng.choice(len(weights), n, p=weights).astype(np.int16)
    leaves = vocabulary.type_leaf[types]
    brand, n_brands = _brands(config, vocabulary, leaves, rng)

    # Values are the hand-written ones, then brands, then three series of each brand.
    taken = reserved | set(vocabulary.values) | set(vocabulary.nouns)
    brand_names = invent_names(n_brands, taken, rng)
    series_names = invent_names(3 * n_brands, taken, rng)
    value_names = vocabulary.values + brand_names + series_names
    value_type = vocabulary.value_type + ["Brand"] * n_brands + ["Series"] * (3 * n_brands)
    first_brand = len(vocabulary.values)

    # Latent attributes [N, 16] from what the type may have; two of a kind differ, or there is only one.
    values = np.full((n, len(SLOTS)), -1, np.int32)
    present = attribute_figures("present")
    for slot, kind in enumerate(SLOTS):
        if kind in vocabulary.allowed:
            table, cumulative = vocabulary.allowed[kind]
            drawn = table[types, draw_column(cumulative, types, rng)]
            second = slot > 0 and SLOTS[slot - 1] == kind
            if second:
                drawn = np.where((drawn == values[:, slot - 1]) | (rng.random(n) < 0.3), -1, drawn)
            values[:, slot] = np.where(rng.random(n) < present[kind], drawn, -1)
    values[:, SLOTS.index("Brand")] = first_brand + brand
    series = first_brand + n_brands + 3 * brand + rng.integers(0, 3, n)
    values[:, SLOTS.index("Series")] = np.where(rng.random(n) < present["Series"], series, -1)

    # Price level: of the brand, of a luxurious style, a little of quality; its bands are the Price attribute.
    quality = rng.standard_normal(n).astype(np.float32)
    brand_level = rng.standard_normal(n_brands)
    style = values[:, SLOTS.index("Style")]
    luxury = np.isin(
        style, [i for i, name in enumerate(vocabulary.values) if name in ("luxury", "elegant", "art deco")]
    )
    raw = 0.6 * brand_level[brand] + 0.5 * luxury + 0.2 * quality + 0.6 * rng.standard_normal(n)
    level = ((raw - raw.mean()) / raw.std()).astype(np.float32)
    bands = np.digitize(level, [-1.2, -0.4, 0.4, 1.2])
    values[:, SLOTS.index("Price")] = vocabulary.values.index("cheap") + bands
    base = rng.normal(3.2, 0.7, len(weights))
    price = np.round(np.exp(base[types] + 0.45 * level), 2)

    # Direction of taste: items of a brand and of a style lie together.
    style_taste = rng.standard_normal((len(value_names), TASTES))
    brand_taste = rng.standard_normal((n_brands, TASTES))
    taste = _unit(0.9 * brand_taste[brand] + 0.9 * style_taste[style] + 0.5 * rng.standard_normal((n, TASTES)))

    # Sellers keep to a department; emerging ones are new, with new items.
    department = vocabulary.leaf_department[leaves].astype(np.int64)
    per_department = max(4, round(n / settings.items_per_seller / (int(department.max()) + 1)))
    size = np.arange(1, per_department + 1) ** -0.7
    seller = department * per_department + rng.choice(per_department, n, p=size / size.sum())
    emerging = rng.random(per_department * (int(department.max()) + 1)) < settings.emerging_seller_share

    # Listing times: old stock within the 900 days before, new items during the period.
    period = config.days * US_PER_DAY
    is_new = rng.random(n) < settings.new_item_share
    before = start - (rng.random(n) ** 1.5 * 900 * US_PER_DAY).astype(np.int64) - 1
    within = start + (rng.random(n) * period).astype(np.int64)
    later = start + ((0.2 + 0.8 * rng.random(n)) * period).astype(np.int64)
    listed = np.where(emerging[seller], later, np.where(is_new, within, before))
    popularity = settings.popularity_sigma * (0.7 * rng.standard_normal(n) + 0.7 * quality) - 1.0 * emerging[seller]

    # Models: up to four of a brand and type.
    group = (brand * len(weights) + types) * _FIRST_MODEL + rng.integers(0, _FIRST_MODEL, n)
    models = np.unique(group, return_inverse=True)[1].astype(np.int32)
    return MarketCatalogue(
        types,
        leaves,
        values,
        models,
        seller.astype(np.int32),
        emerging,
        price,
        level,
        quality,
        taste,
        popularity.astype(np.float32),
        listed,
        value_names,
        value_type,
    )


def model_names(catalogue: MarketCatalogue, seed: int) -> list[str]:
    """A model number such as ``VK482`` per model."""
    count = int(catalogue.models.max()) + 1
    rng = np.random.default_rng([seed, 4])
    letters = np.array(list("ABCDEFGHJKLMNPRSTVWXZ"))[rng.integers(0, 21, (2, count))]
    digits = rng.integers(100, 9999, count).tolist()
    return [f"{one}{two}{number}" for one, two, number in zip(*letters.tolist(), digits, strict=True)]
