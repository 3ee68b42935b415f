"""Videos and live rooms of the market: what they show, what is said in them, and who asks for them.

Each is a row of the catalogue behind the products, with the latent attributes of the product that it shows first, so
that relevance and choice treat it as an item: it is relevant to what it shows. A room is there from its start until
before its end. All draws are of a stream of their own: a market without kinds is the same as before there were any.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.records import KINDS, TIME
from onesearch.market import keyed_random as keyed
from onesearch.market.market_catalogue import US_PER_DAY, MarketCatalogue
from onesearch.market.market_queries import Queries
from onesearch.market.market_settings import KindParameters, MarketSettings
from onesearch.market.market_vocabulary import SLOTS, MarketVocabulary
from onesearch.market.word_tables import read_words

VIDEO, LIVE = KINDS.index("video"), KINDS.index("live")
SUFFIX: Final = {VIDEO: " video", LIVE: " live room"}
"""What a query ends with that asks for a kind."""
_STREAM: Final = 15  # of random numbers
_BUILD, _ASK, _SAY = range(3)  # what a draw is for
_NEVER: Final = np.iinfo(np.int64).max
_SAID: Final = tuple(i for i, kind in enumerate(SLOTS) if kind not in ("Brand", "Series", "Price"))


@dataclass(frozen=True)
class MarketKinds:
    """What every item is (N items, the products first).

    Attributes:
        kind: number into :data:`~onesearch.data.records.KINDS`, int8 [N].
        ends: microseconds since 1970 until which it is shown, int64 [N].
        links: products that are shown, int32 [M]; ``offsets`` int64 [N + 1] say where those of an item begin.
    """

    kind: NDArray[np.int8]
    ends: NDArray[np.int64]
    links: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @cached_property
    def linked(self) -> Ragged:
        """The products that each item shows."""
        return Ragged(self.links, self.offsets)

    def kind_of(self, items: NDArray[np.integer]) -> NDArray[np.int8]:
        """Kinds of items of any shape; those listed after the log are products."""
        known = items < len(self.kind)
        return np.where(known, self.kind[np.where(known, items, 0)], 0).astype(np.int8)

    def is_on(self, items: NDArray[np.integer], time: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether items have not ended at a time, elementwise."""
        known = items < len(self.kind)
        return ~known | (self.ends[np.where(known, items, 0)] > time)

    def liking(
        self, asked: NDArray[np.int8], items: NDArray[np.integer], parameters: KindParameters
    ) -> NDArray[np.float32]:
        """What a click's log-odds gain where a kind is asked for (0: none) and an item of some kind is there."""
        kind = self.kind_of(items)
        unasked = np.where(kind == 0, 0.0, parameters.click_unasked)
        wanted = np.where(kind == asked, parameters.click_asked, parameters.click_other)
        return np.where(asked == 0, unasked, wanted).astype(np.float32)


def asked_kinds(texts: list[str]) -> NDArray[np.int8]:
    """The kind that each query text asks for, int8 [Q]; 0 for none."""
    return np.array([next((k for k, end in SUFFIX.items() if text.endswith(end)), 0) for text in texts], np.int8)


def with_kinds(config: MarketSettings, catalogue: MarketCatalogue, start: int) -> tuple[MarketCatalogue, MarketKinds]:
    """The catalogue with videos and live rooms behind its products; ``start`` is the first microsecond of the log."""
    rng, n = np.random.default_rng([config.seed, _STREAM, _BUILD]), len(catalogue)
    kind = np.repeat([VIDEO, LIVE], [round(share * n) for share in (config.videos, config.live_rooms)]).astype(np.int8)
    count = len(kind)
    # The product shown first, then up to four more of its leaf, each once.
    first = rng.integers(0, n, count)
    by_leaf = np.argsort(catalogue.leaves, kind="stable")
    begin, end = (
        np.searchsorted(catalogue.leaves[by_leaf], catalogue.leaves[first], side) for side in ("left", "right")
    )
    more = by_leaf[begin[:, None] + (rng.random((count, 4)) * (end - begin)[:, None]).astype(np.int64)]
    shown = rng.integers(1, 6, count).tolist()
    lists = [
        list(dict.fromkeys([one, *row]))[:k] for one, row, k in zip(first.tolist(), more.tolist(), shown, strict=True)
    ]
    links = Ragged.from_lists([*([[]] * n), *lists])
    # Videos came within half a year before the log's end; rooms of the log's days last for one to five days.
    period, parameters = config.days * US_PER_DAY, config.kinds
    came = start + period - (rng.random(count) * 180 * US_PER_DAY).astype(np.int64)
    begins = start + (rng.uniform(-0.05, 1, count) * period).astype(np.int64)
    lasts = (rng.uniform(*parameters.days_on, count) * US_PER_DAY).astype(np.int64)
    is_live = kind == LIVE
    listed, ends = np.where(is_live, begins, came), np.where(is_live, begins + lasts, _NEVER)
    # As the first product in all that is true of it, but for how good and how well known it is.
    own = {
        "listed": listed,
        "quality": rng.standard_normal(count).astype(np.float32),
        "log_popularity": (config.catalogue.popularity_sigma * rng.standard_normal(count)).astype(np.float32),
    }
    columns: dict[str, Any] = {}
    for field in fields(catalogue):
        value = getattr(catalogue, field.name)
        if field.name not in ("seller_emerging", "value_names", "value_type"):
            columns[field.name] = np.concatenate([value, own.get(field.name, value[first])])
    kinds = MarketKinds(
        np.concatenate([np.zeros(n, np.int8), kind]),
        np.concatenate([np.full(n, _NEVER), ends]),
        links.values,
        links.offsets,
    )
    return replace(catalogue, **columns), kinds


def asking_for_kinds(
    config: MarketSettings,
    kinds: MarketKinds,
    catalogue: MarketCatalogue,
    queries: Queries,
    number: NDArray[np.int32],
    focus: NDArray[np.int16],
    time: NDArray[np.int64],
) -> tuple[Queries, NDArray[np.int32]]:
    """Some plain page views ask for a video, or for a live room of a leaf where one is on, in place of products.

    Args:
        config: of the market.
        kinds: of its items.
        catalogue: with them.
        queries: distinct ones, Q.
        number: the query of each page view, [n].
        focus: leaf of each page view, [n].
        time: microseconds, [n].

    Returns:
        The queries with those that ask for kinds behind them, and the query of each page view.
    """
    rng = np.random.default_rng([config.seed, _STREAM, _ASK])
    plain = queries.kind[number] == 0
    wanted_kind = np.where(rng.random(len(number)) < config.kinds.asked_live, LIVE, VIDEO)
    drawn = np.where(plain & (rng.random(len(number)) < config.kinds.asked), wanted_kind, 0)
    # Nobody asks for what the leaf never has.
    for kind in (VIDEO, LIVE):
        rows, items = np.flatnonzero(drawn == kind), np.flatnonzero(kinds.kind == kind)
        there = catalogue.leaves[items][None, :] == focus[rows][:, None]
        there &= (catalogue.listed[items][None, :] <= time[rows][:, None]) & (
            kinds.ends[items][None, :] > time[rows][:, None]
        )
        drawn[rows[~there.any(1)]] = 0
    asking = np.flatnonzero(drawn)
    pairs, place = np.unique(np.stack([number[asking], drawn[asking]]), axis=1, return_inverse=True)
    rows, wanted = pairs
    texts = [queries.texts[row] + SUFFIX[kind] for row, kind in zip(rows.tolist(), wanted.tolist(), strict=True)]
    columns = {field.name: getattr(queries, field.name) for field in fields(queries)}
    more = {name: value[rows] for name, value in columns.items() if isinstance(value, np.ndarray)}
    more["keys"] = keyed.text_key(texts)
    joined = {name: np.concatenate([columns[name], value]) for name, value in more.items()}
    core = [*queries.core, *(queries.core[row] for row in rows.tolist())]
    out = number.copy()
    out[asking] = len(queries) + place.reshape(-1)
    return Queries(texts=[*queries.texts, *texts], core=core, **joined), out


def kind_columns(
    config: MarketSettings,
    vocabulary: MarketVocabulary,
    catalogue: MarketCatalogue,
    kinds: MarketKinds,
    titles: pl.Series,
) -> dict[str, pl.Series]:
    """Columns of the item table that say what the items are: titles, kinds, transcripts, hosts, links and times."""
    rng, words = np.random.default_rng([config.seed, _STREAM, _SAY]), read_words("kinds")
    n, linked = len(kinds.kind), kinds.linked
    title: list[str] = titles.to_list()
    transcript: list[str | None] = [None] * n
    host: list[str | None] = [None] * n

    def some(name: str) -> str:
        return str(words[name][rng.integers(len(words[name]))])

    # What is said, product by product.
    for row in np.flatnonzero(kinds.kind).tolist():
        products = linked[row].tolist()
        title[row] = some(KINDS[kinds.kind[row]]).format(title=titles[products[0]])
        host[row] = some("hosts")
        said = [_said_of(product, config.kinds, vocabulary, catalogue, rng) for product in products]
        transcript[row] = " ".join([some("opening"), *(some("product").format(**one) for one in said), some("closing")])
    # Of rooms their times; nothing else begins or ends.
    live = pl.Series(kinds.kind == LIVE)
    times = {"start": catalogue.listed, "end": kinds.ends}
    return {
        "title": pl.Series(title),
        "kind": pl.Series([KINDS[kind] for kind in kinds.kind]),
        "transcript": pl.Series(transcript, dtype=pl.String),
        "host": pl.Series(host, dtype=pl.String),
        "linked": pl.Series(
            [[f"i{product}" for product in linked[row].tolist()] for row in range(n)], dtype=pl.List(pl.String)
        ),
        **{name: pl.Series(np.where(live, value, 0)).cast(TIME).set(~live, None) for name, value in times.items()},
    }


def _said_of(
    product: int,
    parameters: KindParameters,
    vocabulary: MarketVocabulary,
    catalogue: MarketCatalogue,
    rng: np.random.Generator,
) -> dict[str, str]:
    """What a host calls a product and says of it: some of its attributes, now and then one that it has not."""
    values = catalogue.values[product, list(_SAID)]
    names = []
    for value in values[values >= 0].tolist():
        if rng.random() < parameters.said:
            wrong = rng.random() < parameters.said_wrong
            names.append(catalogue.value_names[int(rng.integers(len(vocabulary.values))) if wrong else value])
    noun = vocabulary.nouns[int(vocabulary.type_noun[catalogue.types[product], 0])]
    return {"noun": noun, "said": " and ".join(names) or "very nice"}
