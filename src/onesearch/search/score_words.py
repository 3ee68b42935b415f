"""The parts of a score in words: what speaks for an item and what against it, the weightiest first."""

from collections.abc import Sequence
from typing import Final

from onesearch.search.results import Part

_MODEL: Final = "the model finds it likely for this search"
_LIKE: Final = "its text means what the query means"
_WORDS: Final = "the query's words stand in its texts"
_CLICKED: Final = "shoppers clicked it for this query"
_ALIKE: Final = "for words of the query shoppers click items of its category, attributes or title"
_TASTE: Final = "it suits what this shopper took before"
_POPULAR: Final = "shoppers take it often"
_PRICE: Final = "its price is one that shoppers take"
# By feature, the longest beginning that fits; ``word_`` has one for each kind of trait.
TOPICS: Final = {
    "log_prob": _MODEL,
    "prob": _MODEL,
    "item_score": _MODEL,
    "text": _LIKE,
    "lexical": _WORDS,
    "clicks": _CLICKED,
    "click_share": _CLICKED,
    "live_clicks": "shoppers clicked it for this query lately",
    "word_": _ALIKE,
    "taste": _TASTE,
    "together": _TASTE,
    "following": _TASTE,
    "in_history": "this shopper has taken it before",
    "popularity": _POPULAR,
    "item_clicks": _POPULAR,
    "item_orders": _POPULAR,
    "item_click_rate": _POPULAR,
    "item_never_shown": "nobody has been shown it yet",
    "item_price": _PRICE,
    "boost": "the shop shows it more",
    "out_of_stock": "it is out of stock",
}
"""What a feature's part of a score means, by the beginning of its name."""
OTHER: Final = "other features of the order"


def topic_of(feature: str) -> str:
    """The words for a feature; :data:`OTHER` for one that has none."""
    fitting = [name for name in TOPICS if feature.startswith(name)]
    return TOPICS[max(fitting, key=len)] if fitting else OTHER


def score_words(parts: Sequence[Part], most: int = 4) -> tuple[str, ...]:
    """At most ``most`` sentences about a score's parts, summed by what they mean: the weightiest first.

    >>> score_words([Part("clicks", 1.0, 2.0), Part("text", 0.5, -1.0)])
    ('for it: shoppers clicked it for this query (+2.00)', 'against it: its text means what the query means (-0.50)')
    """
    total: dict[str, float] = {}
    for part in parts:
        topic = topic_of(part.feature)
        total[topic] = total.get(topic, 0.0) + part.product
    # A part that is weighted down counts against the item, whatever its name says.
    told = sorted(((topic, value) for topic, value in total.items() if value), key=lambda one: -abs(one[1]))
    return tuple(f"{'for' if value > 0 else 'against'} it: {topic} ({value:+.2f})" for topic, value in told[:most])
