"""Listings: the titles and structured attributes that sellers write about items, with the noise of real ones."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.market.market_catalogue import MarketCatalogue, model_names
from onesearch.market.market_settings import MarketSettings
from onesearch.market.market_vocabulary import SLOTS, MarketVocabulary, draw_column
from onesearch.market.word_tables import attribute_numbers, read_words


def _capitals(name: str) -> str:
    return " ".join(word.capitalize() for word in name.split(" "))


def _gather(names: NDArray[np.object_], numbers: NDArray[np.integer]) -> pl.Series:
    """Names by number; -1 gives null."""
    picked = names[numbers]
    picked[numbers < 0] = None
    return pl.Series(picked.tolist(), dtype=pl.String)


def _stated(
    catalogue: MarketCatalogue,
    vocabulary: MarketVocabulary,
    slot: int,
    state: NDArray[np.float64],
    conflict: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """The value a listing states for a slot, int32 [N]; -1 when it states none, sometimes a wrong one."""
    n, kind = len(catalogue), SLOTS[slot]
    true = catalogue.values[:, slot]
    said = np.where(rng.random(n) < state * attribute_numbers("stated")[kind], true, -1)
    if kind in vocabulary.allowed:
        table, cumulative = vocabulary.allowed[kind]
        other = table[catalogue.types, draw_column(cumulative, catalogue.types, rng)]
        said = np.where((rng.random(n) < conflict) & (said >= 0), other, said)
    return said.astype(np.int32)


def build_listings(
    config: MarketSettings, vocabulary: MarketVocabulary, catalogue: MarketCatalogue
) -> tuple[pl.Series, pl.Series]:
    """Titles (String) and structured attributes (List(Struct{type, value})) of all items."""
    rng = np.random.default_rng([config.seed, 5])
    settings, n = config.catalogue, len(catalogue)
    words, departments = read_words("titles"), read_words("catalogue")["departments"].values()
    department = vocabulary.leaf_department[catalogue.leaves]
    ambiguous = np.array([one["ambiguous"] for one in departments])[department]
    state = np.where(ambiguous, settings.stated_ambiguous, settings.stated)
    conflict = np.where(ambiguous, settings.conflict_ambiguous, settings.conflict)
    names = np.array([*catalogue.value_names, None], object)
    nouns = np.array([*vocabulary.nouns, None], object)
    marketing = np.array([*words["marketing"], None], object)
    models = np.array([*model_names(catalogue, config.seed), None], object)

    parts: dict[str, pl.Series] = {}
    fields: list[pl.Expr] = []
    field_columns: dict[str, pl.Series] = {}
    shown_names = np.array([*map(_capitals, catalogue.value_names), None], object)
    for slot, kind in enumerate(SLOTS):
        label = kind + "2" if kind in parts else kind
        parts[label] = _gather(shown_names, _stated(catalogue, vocabulary, slot, state, conflict, rng))
        if kind != "Price":
            in_field = _stated(catalogue, vocabulary, slot, np.full(n, settings.field_stated), conflict, rng)
            field_columns[label] = _gather(names, in_field)
            fields.append(pl.struct(pl.lit(kind).alias("type"), pl.col(label).alias("value")))
    says_model = rng.random(n) < np.array([one["model_stated"] for one in departments])[department]
    parts["Model"] = _gather(models, np.where(says_model, catalogue.models, -1))
    synonyms = (vocabulary.type_noun[catalogue.types] >= 0).sum(1)
    column = np.where(rng.random(n) < 0.7, 0, rng.integers(0, 3, n) % synonyms)
    noun = vocabulary.type_noun[catalogue.types, column]
    parts["Noun"] = _gather(np.array([*map(_capitals, vocabulary.nouns), None], object), noun)
    parts["Marketing"] = _gather(
        marketing, np.where(rng.random(n) < settings.marketing, rng.integers(0, len(marketing) - 1, n), -1)
    )
    # Stuffed words name another product of the same department more often than a random one.
    stuffed_share = np.where(ambiguous, settings.stuffed_ambiguous, settings.stuffed)
    neighbour = vocabulary.type_noun[
        np.clip(catalogue.types.astype(np.int64) + rng.integers(-6, 7, n), 0, len(vocabulary.type_nouns) - 1), 0
    ]
    foreign = np.where(rng.random(n) < 0.7, neighbour, rng.integers(0, len(vocabulary.nouns), n))
    parts["Stuffed"] = _gather(nouns, np.where(rng.random(n) < stuffed_share, foreign, -1))
    hosts = np.array([*words["anchors"], None], object)
    parts["Anchor"] = _gather(hosts, np.where(rng.random(n) < 0.04, rng.integers(0, len(hosts) - 1, n), -1))

    layout = rng.integers(0, len(words["layouts"]), n)
    frame = pl.DataFrame(parts).with_columns(layout=pl.Series(layout))
    title = pl.lit("")
    for number, order in enumerate(words["layouts"]):
        joined = pl.concat_str([pl.col(name) for name in order], separator=" ", ignore_nulls=True)
        title = pl.when(pl.col("layout") == number).then(joined).otherwise(title)
    titles = frame.select(title.alias("title"))["title"]
    field_columns["Entity"] = _gather(
        nouns, np.where(rng.random(n) < 0.8, vocabulary.type_noun[catalogue.types, 0], -1)
    )
    fields.append(pl.struct(pl.lit("Entity").alias("type"), pl.col("Entity").alias("value")))
    attributes = pl.DataFrame(field_columns).select(
        pl.concat_list(fields).list.filter(pl.element().struct.field("value").is_not_null()).alias("attributes")
    )["attributes"]
    return titles, attributes
