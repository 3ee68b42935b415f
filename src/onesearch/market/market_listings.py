"""Listings: the titles and structured attributes that sellers write about items, with the noise of real ones."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.market.market_catalogue import MarketCatalogue, model_names
from onesearch.market.market_pictures import SHOWN
from onesearch.market.market_settings import MarketSettings
from onesearch.market.market_vocabulary import SLOTS, MarketVocabulary, draw_column, names_of
from onesearch.market.word_tables import attribute_figures, read_words


def _capitals(name: str) -> str:
    return " ".join(word.capitalize() for word in name.split(" "))


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
    # Not stated at all, stated as it is, or another value that the type may have.
    said = np.where(rng.random(n) < state * attribute_figures("stated")[kind], true, -1)
    if kind in vocabulary.allowed:
        table, cumulative = vocabulary.allowed[kind]
        other = table[catalogue.types, draw_column(cumulative, catalogue.types, rng)]
        said = np.where((rng.random(n) < conflict) & (said >= 0), other, said)
    return said.astype(np.int32)


def _drawn_phrases(phrases: list[str], share: float, n: int, rng: np.random.Generator) -> pl.Series:
    """One of the phrases for a ``share`` of n listings, null for the others."""
    return names_of(phrases, np.where(rng.random(n) < share, rng.integers(0, len(phrases), n), -1))


def _left_to_pictures(config: MarketSettings) -> dict[str, NDArray[np.bool_]]:
    """By attribute type that pictures show: the items whose texts leave it out, bool [N]; draws of their own."""
    rng = np.random.default_rng([config.seed, 14])
    return {kind: rng.random(config.items) < config.picture_only for kind in SHOWN} if config.picture_only else {}


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

    # Title parts and structured fields state each slot independently of each other.
    parts: dict[str, pl.Series] = {}
    fields: list[pl.Expr] = []
    field_columns: dict[str, pl.Series] = {}
    capitals = [_capitals(name) for name in catalogue.value_names]
    unsaid = _left_to_pictures(config)
    for slot, kind in enumerate(SLOTS):
        label = kind + "2" if kind in parts else kind
        said = _stated(catalogue, vocabulary, slot, state, conflict, rng)
        parts[label] = names_of(capitals, np.where(unsaid[kind], -1, said) if kind in unsaid else said)
        if kind != "Price":
            in_field = _stated(catalogue, vocabulary, slot, np.full(n, settings.field_stated), conflict, rng)
            in_field = np.where(unsaid[kind], -1, in_field) if kind in unsaid else in_field
            field_columns[label] = names_of(catalogue.value_names, in_field)
            fields.append(pl.struct(pl.lit(kind).alias("type"), pl.col(label).alias("value")))
    says_model = rng.random(n) < np.array([one["model_stated"] for one in departments])[department]
    parts["Model"] = names_of(model_names(catalogue, config.seed), np.where(says_model, catalogue.models, -1))
    # Some sellers use a synonym of the product's name.
    synonyms = (vocabulary.type_noun[catalogue.types] >= 0).sum(1)
    column = np.where(rng.random(n) < 0.7, 0, rng.integers(0, 3, n) % synonyms)
    noun = vocabulary.type_noun[catalogue.types, column]
    parts["Noun"] = names_of([_capitals(name) for name in vocabulary.nouns], noun)
    parts["Marketing"] = _drawn_phrases(words["marketing"], settings.marketing, n, rng)
    # Stuffed words name another product of the same department more often than a random one.
    stuffed_share = np.where(ambiguous, settings.stuffed_ambiguous, settings.stuffed)
    neighbour = vocabulary.type_noun[
        np.clip(catalogue.types.astype(np.int64) + rng.integers(-6, 7, n), 0, len(vocabulary.type_nouns) - 1), 0
    ]
    # Within six types in the tree, mostly.
    foreign = np.where(rng.random(n) < 0.7, neighbour, rng.integers(0, len(vocabulary.nouns), n))
    parts["Stuffed"] = names_of(vocabulary.nouns, np.where(rng.random(n) < stuffed_share, foreign, -1))
    parts["Anchor"] = _drawn_phrases(words["anchors"], 0.04, n, rng)

    # Every seller has one of a few orders of the parts.
    layout = rng.integers(0, len(words["layouts"]), n)
    frame = pl.DataFrame(parts).with_columns(layout=pl.Series(layout))
    title = pl.lit("")
    for number, order in enumerate(words["layouts"]):
        joined = pl.concat_str([pl.col(name) for name in order], separator=" ", ignore_nulls=True)
        title = pl.when(pl.col("layout") == number).then(joined).otherwise(title)
    titles = frame.select(title.alias("title"))["title"]
    entity = np.where(rng.random(n) < 0.8, vocabulary.type_noun[catalogue.types, 0], -1)
    field_columns["Entity"] = names_of(vocabulary.nouns, entity)
    fields.append(pl.struct(pl.lit("Entity").alias("type"), pl.col("Entity").alias("value")))
    attributes = pl.DataFrame(field_columns).select(
        pl.concat_list(fields).list.filter(pl.element().struct.field("value").is_not_null()).alias("attributes")
    )["attributes"]
    return titles, attributes
