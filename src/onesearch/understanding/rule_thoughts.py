"""What producers without a language model share: the phrases that they may name, what a query states, a thought."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onesearch.data.text import split_words
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary, canonical
from onesearch.understanding.keyword_extraction import extract
from onesearch.understanding.keyword_lexicon import Keyword, Lexicon
from onesearch.understanding.query_types import merchandise, query_type, split_negated
from onesearch.understanding.thought import Analysis, Attribute, Thought

MOST_TOPICS: Final = 12
_MOST_ATTRIBUTES: Final = 16
_MOST_CANDIDATES: Final = 8  # so that popular topics do not push out the better ones


def typed_phrases(words: CatalogueVocabulary, lexicon: Lexicon | None) -> dict[str, str]:
    """Attribute types of phrases: those of the catalogue, then those of the lexicon's keywords."""
    kinds = dict(words.kinds)
    for keyword in lexicon.keywords if lexicon is not None else ():
        known = words.keyword(keyword.text)
        if known is not None:
            kinds.setdefault(known, keyword.type)
    return kinds


def topic_phrases(words: CatalogueVocabulary, kinds: Mapping[str, str], lexicon: Lexicon | None) -> NDArray[np.intp]:
    """Numbers of the pool's phrases that may be topics.

    With a lexicon they are those that have a type, else all; names that only inner category nodes have are too broad.
    """
    inner = {path[:-1] for path in words.paths}
    names = {path: canonical(split_words(path[-1])) for path in words.paths}
    upper = {names[p] for p in words.paths if p in inner} - {names[p] for p in words.paths if p not in inner}
    able = [(lexicon is None or text in kinds) and text not in upper for text in words.phrases]
    return np.flatnonzero(np.array(able, bool))


class StatedAttributes:
    """The typed phrases that queries say, and those of them that they rule out ("without leather")."""

    def __init__(self, words: CatalogueVocabulary, kinds: Mapping[str, str]) -> None:
        """``kinds``: attribute types of canonical phrases."""
        self._lexicon = Lexicon([Keyword(text, kind, words.popularity(text)) for text, kind in kinds.items()])

    def find(self, queries: Sequence[str]) -> list[tuple[Attribute, ...]]:
        """Attributes of each normalised query; ruled out ones first, for they must not be cut off."""
        parts = [split_negated(query) for query in queries]
        stated = self._lexicon.match([kept for kept, _ in parts])
        # Keyword numbers of all that each query rules out.
        owners = [i for i, (_, texts) in enumerate(parts) for _ in texts]
        refused = self._lexicon.match([text for _, texts in parts for text in texts])
        ruled_out: dict[int, list[int]] = {}
        for number, owner in enumerate(owners):
            ruled_out.setdefault(owner, []).extend(refused[number].tolist())
        return [self._attributes(stated[i].tolist(), ruled_out.get(i, [])) for i in range(len(queries))]

    def _attributes(self, stated: list[int], ruled_out: list[int]) -> tuple[Attribute, ...]:
        keywords = self._lexicon.keywords
        found = [(number, True) for number in dict.fromkeys(ruled_out)]
        found += [(number, False) for number in stated if number not in ruled_out]
        fitting = [(keywords[number], negated) for number, negated in found if len(keywords[number].text) <= 80]
        return tuple(Attribute(type=k.type, value=k.text, negated=n) for k, n in fitting[:_MOST_ATTRIBUTES])


def thought_of_topics(
    query: str,
    attributes: tuple[Attribute, ...],
    topics: Sequence[str],
    category: tuple[str, ...],
    producer: tuple[str, str],
    words: CatalogueVocabulary,
) -> Thought:
    """Steps 1 and 2 of a normalised query by rules; ``topics``: best first, ``producer``: name and version."""
    intent, form = merchandise(query), query_type(query)
    name, version = producer
    if intent != "merchandise":
        analysis = Analysis(intent=intent, query_type=form)
        return Thought(query=query, analysis=analysis, producer=name, version=version)
    # What the query says itself is never wrong; where nothing else is known, it is all there is.
    said = [attribute.value for attribute in attributes if not attribute.negated]
    topics = list(dict.fromkeys([*said, *topics]))[:MOST_TOPICS]
    analysis = Analysis(intent=intent, query_type=form, category=category, attributes=attributes, topics=tuple(topics))
    keywords, _ = extract(topics[:_MOST_CANDIDATES], analysis, words)
    return Thought(query=query, analysis=analysis, keywords=keywords, producer=name, version=version)
