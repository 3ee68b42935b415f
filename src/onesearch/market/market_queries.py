"""Query texts and their meaning: every distinct text has one intent, written as predicates over latent attributes."""

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.market import keyed_random as keyed
from onesearch.market.market_catalogue import MarketCatalogue, model_names
from onesearch.market.market_traffic import COMPLEX_TYPES, QUERY_TYPES, Plans, TrafficPlanner
from onesearch.market.market_vocabulary import SLOTS, MarketVocabulary, names_of
from onesearch.market.needs import Needs
from onesearch.market.word_tables import read_words

PREDICATES: Final = 3
RANKING: Final = QUERY_TYPES.index("ranking")
GIFT: Final = QUERY_TYPES.index("recommendation")


@dataclass(frozen=True)
class Queries:
    """Q distinct query texts.

    Attributes:
        texts: [Q].
        core: the words of a text that can occur in titles at all (the rest scores nothing in BM25), [Q].
        kind: number into QUERY_TYPES, int8 [Q].
        type_set: row of ``type_sets``, int32 [Q].
        predicates: up to three, int32 [Q, 3]: a value number, or V + trait number; -1 for none.
        ban: a value the item must not have, int32 [Q], -1 for none.
        model: model number, int32 [Q], -1 for none.
        names_audience: the query itself says for whom, bool [Q].
        topic: topic word, int32 [Q], -1 for none (traits are in ``predicates``).
        keys: hash of the text, uint64 [Q], which keys the shopper's fate.
    """

    texts: list[str]
    core: list[str]
    kind: NDArray[np.int8]
    type_set: NDArray[np.int32]
    predicates: NDArray[np.int32]
    ban: NDArray[np.int32]
    model: NDArray[np.int32]
    names_audience: NDArray[np.bool_]
    topic: NDArray[np.int32]
    keys: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.texts)


def build_type_sets(
    vocabulary: MarketVocabulary, needs: Needs, catalogue: MarketCatalogue, planner: TrafficPlanner
) -> NDArray[np.bool_]:
    """All sets of product types a query can mean, bool [S, T]: nouns, topics, alternatives of a type, types of a
    brand.
    """
    brand_values = catalogue.values[:, SLOTS.index("Brand")]
    first = catalogue.value_type.index("Brand")
    n_brands = catalogue.value_type.count("Brand")
    of_brand = np.zeros((n_brands, len(vocabulary.type_nouns)), np.bool_)
    of_brand[brand_values - first, catalogue.types] = True
    return np.concatenate([vocabulary.noun_types, needs.topic_types, planner.alternatives, of_brand])


def _typo(text: str, number: int) -> str:
    """Misspell the longest word: swap, drop, double or replace a letter in its middle."""
    # The place depends on the word alone, so that a text has few misspellings, each met again.
    words = text.split(" ")
    place = max(range(len(words)), key=lambda i: len(words[i]))
    word = words[place]
    if len(word) < 4:
        return text
    at = 1 + (len(word) * number) % (len(word) - 2)
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    dropped = word[:at] + word[at + 1 :]
    doubled = word[:at] + word[at] + word[at:]
    words[place] = (swapped, dropped, doubled, dropped)[number % 4]
    return " ".join(words)


def _texts(
    plans: Plans, vocabulary: MarketVocabulary, needs: Needs, catalogue: MarketCatalogue, seed: int
) -> tuple[list[str], list[str]]:
    """Texts of distinct plans, and their core (without need and template words)."""
    # The words that each plan may use.
    frame = pl.DataFrame(
        {
            "kind": plans.kind,
            "form": plans.form,
            "variant": plans.variant,
            "noun": names_of(vocabulary.nouns, plans.noun),
            "attribute": names_of(catalogue.value_names, plans.attribute),
            "second": names_of(catalogue.value_names, plans.second),
            "brand": names_of(catalogue.value_names, plans.brand),
            "model": names_of([name.lower() for name in model_names(catalogue, seed)], plans.model),
            "ban": names_of(catalogue.value_names, plans.ban),
            "topic": names_of(needs.topics, plans.topic),
            "trait": names_of(needs.traits, plans.trait),
            "other": names_of(needs.traits, plans.other_trait),
        }
    )

    def joined(*names: str) -> pl.Expr:
        return pl.concat_str([pl.col(name) for name in names], separator=" ", ignore_nulls=True)

    # Plain queries in one of two word orders, complex ones by their template; only what titles can hold is their core.
    plain = pl.when(pl.col("variant") == 0).then(joined("brand", "second", "attribute", "noun", "model"))
    text = plain.otherwise(joined("noun", "model", "attribute", "second", "brand"))
    core = joined("noun", "ban")
    for kind, name in enumerate(COMPLEX_TYPES, 1):
        for form, template in enumerate(read_words("queries")["templates"][name]):
            filled = pl.format(re.sub(r"{\w+}", "{}", template), *re.findall(r"{(\w+)}", template))
            here = (pl.col("kind") == kind) & (pl.col("form") == form)
            text = pl.when(here).then(filled).otherwise(text)
    table = frame.select(
        text.alias("text"), pl.when(pl.col("kind") > 0).then(core).otherwise(pl.lit(None)).alias("core")
    )
    texts = table["text"].to_list()
    # Typing errors belong to plain queries alone.
    for row in np.flatnonzero((plans.typo > 0) & (plans.kind == 0)).tolist():
        texts[row] = _typo(texts[row], int(plans.typo[row]))
    cores = [text if core is None else core for text, core in zip(texts, table["core"].to_list(), strict=True)]
    return texts, cores


def build_queries(
    plans: Plans, vocabulary: MarketVocabulary, needs: Needs, catalogue: MarketCatalogue, seed: int
) -> tuple[Queries, NDArray[np.int32]]:
    """Distinct queries of the plans, and the query number of each plan, int32 [n]."""
    # Equal plans are one query: texts are made for distinct plans only.
    number = keyed.key(0, *plans.parts())
    _, first, inverse = np.unique(number, return_index=True, return_inverse=True)
    distinct = plans.select(first)
    texts, cores = _texts(distinct, vocabulary, needs, catalogue, seed)
    # Different plans may give the same text (typos, shared words): the plan met first decides what it means.
    table = pl.DataFrame({"text": texts, "row": np.arange(len(texts)), "first": first}).sort("first")
    table = table.with_columns(query=pl.col("row").first().over("text"))
    owner = np.empty(len(texts), np.int64)
    owner[table["row"].to_numpy()] = table["query"].to_numpy()
    kept, query_of_distinct = np.unique(owner, return_inverse=True)
    chosen = distinct.select(kept)

    # Which product types are meant: rows of the type sets, in the order of build_type_sets.
    n_nouns, n_topics = len(vocabulary.nouns), len(needs.topics)
    noun_type = np.full(n_nouns + 1, -1, np.int64)
    for row in range(len(vocabulary.type_nouns) - 1, -1, -1):
        noun_type[vocabulary.type_noun[row, 0]] = row
    first_brand = catalogue.value_type.index("Brand")
    alternatives = QUERY_TYPES.index("alternatives")
    brand_set = n_nouns + n_topics + len(vocabulary.type_nouns) + chosen.brand - first_brand
    type_set = np.select(
        [chosen.kind == alternatives, chosen.topic >= 0, chosen.noun >= 0],
        [n_nouns + n_topics + noun_type[chosen.noun], n_nouns + chosen.topic, chosen.noun],
        brand_set,
    )
    # Predicates [Q, 3]: traits of complex queries, values and brand of plain ones.
    n_values = len(catalogue.value_names)
    trait = np.where(chosen.trait >= 0, n_values + chosen.trait, -1)
    other = np.where(chosen.other_trait >= 0, n_values + chosen.other_trait, -1)
    is_complex = chosen.kind > 0
    predicates = np.stack(
        [
            np.where(is_complex, trait, chosen.attribute),
            np.where(is_complex, other, chosen.second),
            np.where(is_complex, -1, chosen.brand),
        ],
        1,
    )
    says = np.array([kind == "Audience" for kind in catalogue.value_type] + [False])
    names_audience = says[chosen.attribute] | says[chosen.second] | (chosen.kind == GIFT)
    final = [texts[row] for row in kept.tolist()]
    queries = Queries(
        final,
        [cores[row] for row in kept.tolist()],
        chosen.kind.astype(np.int8),
        type_set.astype(np.int32),
        predicates.astype(np.int32),
        chosen.ban.astype(np.int32),
        chosen.model.astype(np.int32),
        names_audience,
        chosen.topic.astype(np.int32),
        keyed.text_key(final),
    )
    return queries, query_of_distinct[inverse].astype(np.int32)
