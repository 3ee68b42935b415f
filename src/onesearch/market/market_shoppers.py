"""Shoppers: lasting tastes, age and gender, and interests that drift from week to week."""

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onesearch.market.market_catalogue import TASTES
from onesearch.market.market_settings import MarketSettings
from onesearch.market.market_vocabulary import MarketVocabulary
from onesearch.market.word_tables import read_words

GENDERS: Final[tuple[str, ...]] = ("F", "M")
AGE_BANDS: Final[tuple[str, ...]] = ("12-17", "18-23", "24-30", "31-40", "41-49", "50+")
_AGE_SHARE: Final = np.array([0.04, 0.17, 0.25, 0.29, 0.15, 0.10])
_FEMALE_SHARE: Final = 0.56


@dataclass(frozen=True)
class Shoppers:
    """U shoppers.

    Attributes:
        gender, age: true numbers into GENDERS and AGE_BANDS, int8 [U]; gender_known, age_known: what the shop knows.
        taste: preferred direction of taste, float32 [U, 8], length about 1.
        price_level: preferred standardised price, float32 [U].
        activity: relative number of sessions, float64 [U].
        audience_fit: whether an item for an audience suits the shopper, bool [U, 9].
        interests: leaf categories of each week, int16 [U, weeks, interests].
    """

    gender: NDArray[np.int8]
    age: NDArray[np.int8]
    gender_known: NDArray[np.bool_]
    age_known: NDArray[np.bool_]
    taste: NDArray[np.float32]
    price_level: NDArray[np.float32]
    activity: NDArray[np.float64]
    audience_fit: NDArray[np.bool_]
    interests: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.gender)

    def joined(self, more: "Shoppers") -> "Shoppers":
        """These shoppers, then the others."""
        return Shoppers(*(np.concatenate([getattr(self, f.name), getattr(more, f.name)]) for f in fields(self)))


def _audience_fit(gender: NDArray[np.int8], age: NDArray[np.int8], parent: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each audience suits, bool [U, 9], in the order of ``attributes.yaml``."""
    female, teen = gender == 0, age == 0
    columns = {
        "women": female & ~teen,
        "men": ~female & ~teen,
        "girls": (teen & female) | parent,
        "boys": (teen & ~female) | parent,
        "kids": parent,
        "toddlers": parent,
        "teens": (age <= 1) | parent,
        "seniors": age == 5,
        "unisex": np.ones_like(female),
    }
    return np.stack([columns[name] for name in read_words("attributes")["Audience"]["values"]], 1)


def _weekly_interests(
    config: MarketSettings,
    vocabulary: MarketVocabulary,
    leaf_weight: NDArray[np.float64],
    gender: NDArray[np.int8],
    parent: NDArray[np.bool_],
    before: NDArray[np.int16] | None,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """Leaves of interest of a week, int16 [U, interests]: most are those of the week before, if there was one."""
    settings, n = config.shoppers, len(gender)
    # Demand of leaves by gender: of the department, then of leaves for women, men and children.
    departments = read_words("catalogue")["departments"].values()
    pull = np.array([[one["women"], 1.0] for one in departments])[vocabulary.leaf_department]  # [L, 2]
    leaf_audience = np.array(vocabulary.leaf_audience)
    pull[leaf_audience == "w"] *= [1.6, 0.15]
    pull[leaf_audience == "m"] *= [0.3, 1.6]
    children = np.where(leaf_audience == "k", 0.3, 1.0)
    # Four kinds of shopper share a demand vector: gender x parent.
    demand = np.stack(
        [
            leaf_weight * pull[:, g] * (np.where(leaf_audience == "k", 3.0, 1.0) if p else children)
            for g in (0, 1)
            for p in (0, 1)
        ]
    )
    cumulative = np.cumsum(demand / demand.sum(1, keepdims=True), 1)
    kind = gender.astype(np.int64) * 2 + parent
    u = rng.random((n, settings.interests))
    drawn = np.empty((n, settings.interests), np.int16)
    for row in range(4):
        of_kind = kind == row
        drawn[of_kind] = np.searchsorted(cumulative[row], u[of_kind]).clip(0, len(leaf_weight) - 1)
    keep = rng.random((n, settings.interests)) < settings.interest_kept_weekly
    return drawn if before is None else np.where(keep, before, drawn)


def next_week(
    shoppers: Shoppers,
    config: MarketSettings,
    vocabulary: MarketVocabulary,
    leaf_weight: NDArray[np.float64],
    rng: np.random.Generator,
) -> Shoppers:
    """The same shoppers in the week after their last one, and in that alone; ``leaf_weight`` is the demand now, [L]."""
    parent = shoppers.audience_fit[:, read_words("attributes")["Audience"]["values"].index("toddlers")]
    before = shoppers.interests[:, -1]
    now = _weekly_interests(config, vocabulary, leaf_weight, shoppers.gender, parent, before, rng)
    return replace(shoppers, interests=now[:, None])


def build_shoppers(config: MarketSettings, vocabulary: MarketVocabulary, leaf_weight: NDArray[np.float64]) -> Shoppers:
    """Draw the shoppers; ``leaf_weight`` is the demand per leaf, [L]."""
    rng = np.random.default_rng([config.seed, 8])
    n, settings = config.users, config.shoppers
    # Who they are: gender, age, whether they buy for children.
    gender = (rng.random(n) >= _FEMALE_SHARE).astype(np.int8)
    age = rng.choice(len(AGE_BANDS), n, p=_AGE_SHARE).astype(np.int8)
    parent = (age >= 2) & (age <= 4) & (rng.random(n) < 0.45)
    # What they like: a direction of taste, a price level that rises with age.
    taste = rng.standard_normal((n, TASTES))
    taste /= np.linalg.norm(taste, axis=1, keepdims=True)
    taste *= rng.uniform(0.6, 1.4, (n, 1))
    price = 0.8 * rng.standard_normal(n) + 0.15 * (age - 2.5)

    # Interests [U, weeks, interests]: drawn anew each week, most of them kept.
    weeks = -(-config.days // 7)
    interests = np.empty((n, weeks, settings.interests), np.int16)
    kinds = gender, parent
    for week in range(weeks):
        before = interests[:, week - 1] if week else None
        interests[:, week] = _weekly_interests(config, vocabulary, leaf_weight, *kinds, before, rng)
    return Shoppers(
        gender,
        age,
        rng.random(n) < settings.gender_known,
        rng.random(n) < settings.age_known,
        taste.astype(np.float32),
        price.astype(np.float32),
        np.exp(settings.activity_sigma * rng.standard_normal(n)),
        _audience_fit(gender, age, parent),
        interests,
    )
