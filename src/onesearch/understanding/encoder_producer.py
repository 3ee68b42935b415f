"""Thoughts by a text encoder: the words of the catalogue whose vectors are nearest to a query's.

The paper has a language model think; this producer asks a pretrained sentence encoder, which costs milliseconds
(docs/method.md, section 4).
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onesearch.data.text import normalise_query
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.keyword_extraction import holds_phrase
from onesearch.understanding.keyword_lexicon import Lexicon
from onesearch.understanding.query_types import split_negated
from onesearch.understanding.rule_thoughts import (
    MOST_TOPICS,
    StatedAttributes,
    thought_of_topics,
    topic_phrases,
    typed_phrases,
)
from onesearch.understanding.thought import Thought

_MOST_PHRASES: Final = 20_000  # the most popular ones: a phrase costs a millisecond once
_LEAST_COSINE: Final = 0.4
_SHORT_LIST: Final = 4 * MOST_TOPICS
_CHUNK: Final = 256  # queries at once, against all phrases


class EncoderProducer:
    """A :class:`~onesearch.understanding.thought.Producer` that compares vectors of texts.

    For a query::

        topics = what the query itself says, then the phrases with the highest cosine with what it does not rule out,
            at least 0.4, without those that hold what it rules out
        keywords = step 2 of the topics, as for any producer

    A cache holds the thoughts of one encoder: its name is the same for all.
    """

    name = "encoder"
    version = "1"

    def __init__(
        self,
        words: CatalogueVocabulary,
        lexicon: Lexicon | None,
        encode: Callable[[Sequence[str]], NDArray[np.float32]],
    ) -> None:
        """Encode the phrases that may be topics.

        Args:
            words: the catalogue.
            lexicon: its keywords are candidates beside attribute values, brands and names of lowest categories;
                without one every phrase of the pool is.
            encode: texts to unit vectors, float32 [n, d].
        """
        kinds = typed_phrases(words, lexicon)
        able = [words.phrases[number] for number in topic_phrases(words, kinds, lexicon).tolist()]
        self._phrases = sorted(able, key=lambda phrase: (-words.popularity(phrase), phrase))[:_MOST_PHRASES]
        self._words, self._encode = words, encode
        self._stated = StatedAttributes(words, kinds)
        self._vectors = encode(self._phrases)

    async def think(self, query: str) -> Thought:
        """Steps 1 and 2 for one query."""
        (thought,) = self.think_all([query])
        return thought

    def think_all(self, queries: Sequence[str]) -> list[Thought]:
        """Thoughts of many queries, in order; where no phrase is near the thought may have no keywords."""
        normal = [normalise_query(query) for query in queries]
        out: list[Thought] = []
        for begin in range(0, len(normal), _CHUNK):
            part = normal[begin : begin + _CHUNK]
            near, stated = self._near(part), self._stated.find(part)
            out += [
                thought_of_topics(query, stated[i], near[i], (), (self.name, self.version), self._words)
                for i, query in enumerate(part)
            ]
        return out

    def _near(self, queries: Sequence[str]) -> list[list[str]]:
        """The nearest phrases of each query, best first."""
        parts = [split_negated(query) for query in queries]
        cosines = self._encode([kept for kept, _ in parts]) @ self._vectors.T  # [n, phrases]
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :_SHORT_LIST]
        out = []
        for i, (kept, ruled_out) in enumerate(parts):
            near = [self._phrases[p] for p in order[i].tolist() if kept and cosines[i, p] >= _LEAST_COSINE]
            out.append([text for text in near if not any(holds_phrase(text, one) for one in ruled_out)][:MOST_TOPICS])
        return out
