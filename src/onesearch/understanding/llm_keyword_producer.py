"""Thoughts by a small language model: it is asked for keywords alone, and rules do the analysis.

Differs from the article, whose model of 32 billion weights does both steps: one of a few hundred million cannot keep to
instructions of this length, but goes on with a list of examples.
"""

from typing import Any

from onesearch.understanding import llm_prompts as prompts
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.keyword_extraction import validated
from onesearch.understanding.llm_producer import LLMProducer, LLMSettings, offered_keywords
from onesearch.understanding.query_types import merchandise, query_type
from onesearch.understanding.rule_thoughts import StatedAttributes
from onesearch.understanding.thought import Thought


class LLMKeywordProducer(LLMProducer):
    """A :class:`~onesearch.understanding.thought.Producer` that asks a model for keywords, after six examples.

    Intent, query type and stated attributes are those of the rules; there is no category. The keywords are checked like
    any model's.
    """

    def __init__(self, words: CatalogueVocabulary, config: LLMSettings | None = None) -> None:
        """See :class:`LLMProducer`."""
        super().__init__(words, config)
        self.version = prompts.KEYWORDS_VERSION
        self._stated = StatedAttributes(words, words.kinds)

    async def think(self, query: str) -> Thought:
        """See :meth:`LLMProducer.think`; a query that wants no merchandise is not asked about."""
        (stated,) = self._stated.find([query])
        known: dict[str, Any] = {"intent": merchandise(query), "query_type": query_type(query)}
        known["attributes"] = [attribute.model_dump() for attribute in stated]
        who = (query, self.name, self.version, self._words)
        if known["intent"] != "merchandise":
            return validated(known, *who)[0]
        thought, dropped = await self._ask_twice(
            prompts.keyword_messages(query, prompts.detect_language(query)),
            prompts.KEYWORDS_SCHEMA,
            lambda answer: validated({**known, "topics": (found := offered_keywords(answer)), "keywords": found}, *who),
        )
        self.usage.dropped += len(dropped)
        return thought
