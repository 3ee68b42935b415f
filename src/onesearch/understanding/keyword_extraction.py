"""Step 2, keyword extraction, as plain rules (docs/method.md, section 4); and the check of every answer from outside.

Nothing here trusts its input: a keyword is kept only in the catalogue's own spelling, an attribute only when the query
says it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from onesearch.data.text import is_unspaced, normalise_query, split_words
from onesearch.understanding.catalogue_vocabulary import STOP_WORDS, canonical, model_numbers, singular
from onesearch.understanding.thought import (
    MOST_KEYWORDS,
    Analysis,
    Attribute,
    Grounding,
    Intent,
    QueryType,
    Thought,
    ThoughtError,
)

Dropped = tuple[tuple[str, str], ...]
"""What was left out, as (text, reason)."""

_LONGEST: Final = 80  # characters
_MOST_LISTED: Final = 16
_MARKETING: Final = (
    "best seller, best sellers, bestseller, best selling, hot sale, hot selling, free shipping, "
    "new arrival, new arrivals, limited offer, special offer, on sale, sale, discount, discounted, "
    "clearance, promotion, promo, deal, deals, cheap, 热卖, 热销, 爆款, 包邮, 特价, 促销, 新款, 正品, 清仓, 秒杀, 折扣"
)
_MARKETING_WORDS: Final = [split_words(phrase) for phrase in re.split(", ", _MARKETING)]  # none begins another
_NUMBER: Final = re.compile(r"\d")


def _encodable(text: str) -> str:
    """JSON escapes can spell half a surrogate pair, which no file or log takes."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("text with half a surrogate pair")
    return text


_Text = Annotated[str, AfterValidator(_encodable)]


class _StatedAttribute(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: _Text
    value: _Text
    negated: bool = False


class _Answer(BaseModel):
    """The decoded JSON as it must look; lengths are not checked, too long texts are dropped one by one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    intent: Intent
    query_type: QueryType = "plain"
    category: list[_Text] = []
    attributes: list[_StatedAttribute] = []
    topics: list[_Text] = []
    keywords: list[_Text] = []


def extract(candidates: Sequence[str], analysis: Analysis, words: Grounding) -> tuple[tuple[str, ...], Dropped]:
    """At most eight keywords out of candidate texts, most popular first (4.1), and what was dropped.

    In pseudo-code::

        a query that wants no merchandise has no keywords
        texts = the candidates; without any the topics; without those the last category name and the stated attributes
        each text: take marketing words out; take the catalogue's spelling; drop it if it is in no item's words or
            holds the words of a negated attribute
        order by popularity, ties by text
        merge synonyms: of the same words (in any order, plural or not) the more popular stays; a keyword inside a
            longer one with the same last word gives way to it
        keep the first eight, model numbers before all others
    """
    if analysis.intent != "merchandise":
        return (), ()
    stated = [attribute.value for attribute in analysis.attributes if not attribute.negated]
    texts = list(candidates) or list(analysis.topics) or [*analysis.category[-1:], *stated]
    ruled_out = [_bare(attribute.value) for attribute in analysis.attributes if attribute.negated]
    dropped: list[tuple[str, str]] = []
    kept: dict[str, bool] = {}  # keyword -> whether a text named it as a model number
    for text in texts:
        plain = _without_marketing(split_words(text))
        keyword = words.keyword(canonical(plain)) if plain else None
        if not plain:
            dropped.append((text, "marketing words only" if split_words(text) else "no words"))
        elif keyword is None:
            dropped.append((text, "off the catalogue"))
        elif any(_holds(_bare(keyword), value) for value in ruled_out):
            dropped.append((text, "ruled out by the query"))
        else:
            kept[keyword] = kept.get(keyword, False) or _is_model(text)
    ranked = sorted(kept, key=lambda keyword: (-words.popularity(keyword), keyword))
    merged = _merged(ranked, dropped)
    # Model numbers name one thing exactly and are bought rarely, so popularity alone would lose them.
    first = sorted(merged, key=lambda keyword: not kept[keyword])[:MOST_KEYWORDS]
    dropped += [(keyword, "less popular than eight others") for keyword in merged if keyword not in first]
    return tuple(keyword for keyword in merged if keyword in first), tuple(dropped)


def validated(
    answer: Mapping[str, Any], query: str, producer: str, version: str, words: Grounding
) -> tuple[Thought, Dropped]:
    """The thought that an untrusted, decoded JSON answer amounts to, and what was dropped from it.

    The answer may have the keys intent (required), query_type, category (list of names, coarse to fine), attributes
    (list of type, value, negated), topics and keywords (lists of texts). Dropped with a reason, without an error: a
    category outside the tree, attributes that the query does not say, texts over 80 characters, and everything but
    intent and query type when the intent is not merchandise.

    Raises:
        ThoughtError: the answer does not have this form, or it has topics or keywords of which not one survives.
    """
    try:
        given = _Answer.model_validate(dict(answer))
        thought, dropped = _thought(given, normalise_query(query), producer, version, words)
    except ValidationError as error:
        raise ThoughtError(f"malformed answer: {_one_line(error)}") from error
    offered = given.keywords or given.topics
    if given.intent == "merchandise" and offered and not thought.keywords:
        reasons = ", ".join(f"{text[:_LONGEST]!r} ({reason})" for text, reason in dropped[:_MOST_LISTED])
        raise ThoughtError(f"off the catalogue: {reasons}")
    return thought, dropped


def stated_in(value: str, query: str) -> bool:
    """Whether a query holds all words of a value, plural or not; characters of an unspaced script must be a run."""
    value_words, query_words = _bare(value), _bare(query)
    if is_unspaced(value):
        return _holds(query_words, value_words)
    return bool(value_words) and set(value_words) <= set(query_words)


def holds_phrase(text: str, phrase: str) -> bool:
    """Whether a text holds the words of a phrase as a run, plural or not."""
    return _holds(_bare(text), _bare(phrase))


def _thought(given: _Answer, query: str, producer: str, version: str, words: Grounding) -> tuple[Thought, Dropped]:
    dropped: list[tuple[str, str]] = []
    if given.intent != "merchandise":
        # The gate: everything else of the answer goes.
        lost = [*given.category, *(a.value for a in given.attributes), *given.topics, *given.keywords]
        reason = f"intent is {given.intent}"
        analysis = Analysis(intent=given.intent, query_type=given.query_type)
        thought = Thought(query=query, analysis=analysis, producer=producer, version=version)
        return thought, tuple((text, reason) for text in lost)
    # A category of the catalogue's own tree.
    category = words.category(given.category) if given.category else None
    if given.category and category is None:
        dropped.append((" > ".join(given.category), "no such category, or several"))
    # Attributes that the query states, each once.
    attributes: list[Attribute] = []
    values = set(_short([a.value for a in given.attributes], dropped))
    for one in given.attributes:
        if one.value not in values:
            continue
        # Built before the check of the query, so that an unknown type is an error whatever the value.
        attribute = Attribute(type=one.type, value=one.value, negated=one.negated)
        if not stated_in(one.value, query):
            dropped.append((one.value, "not stated in the query"))
        elif attribute not in attributes:
            attributes.append(attribute)
    dropped += [(attribute.value, "more than sixteen attributes") for attribute in attributes[_MOST_LISTED:]]
    # Topics as they are; only keywords must be the catalogue's.
    topics = list(dict.fromkeys(_short(given.topics, dropped)))
    dropped += [(topic, "more than sixteen topics") for topic in topics[_MOST_LISTED:]]
    analysis = Analysis(
        intent=given.intent,
        query_type=given.query_type,
        category=category or (),
        attributes=tuple(attributes[:_MOST_LISTED]),
        topics=tuple(topics[:_MOST_LISTED]),
    )
    keywords, more = extract(_short(given.keywords, dropped), analysis, words)
    thought = Thought(query=query, analysis=analysis, keywords=keywords, producer=producer, version=version)
    return thought, (*dropped, *more)


def _short(texts: Sequence[str], dropped: list[tuple[str, str]]) -> list[str]:
    """The texts that are neither blank nor too long; the others are noted."""
    for text in texts:
        if not text.strip():
            dropped.append((text, "empty"))
        elif len(text) > _LONGEST:
            dropped.append((text, f"longer than {_LONGEST} characters"))
    return [text for text in texts if text.strip() and len(text) <= _LONGEST]


def _one_line(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{'.'.join(map(str, problem['loc'])) or 'answer'}: {problem['msg']}" for problem in problems[:5]]
    return " ".join("; ".join(lines).split())


def _bare(text: str) -> list[str]:
    return [singular(word) for word in split_words(text)]


def _holds(long: Sequence[str], short: Sequence[str]) -> bool:
    """Whether words hold other words as a run."""
    size = len(short)
    return 0 < size <= len(long) and any(
        list(long[at : at + size]) == list(short) for at in range(len(long) - size + 1)
    )


def _without_marketing(words: list[str]) -> list[str]:
    at, out = 0, []
    while at < len(words):
        size = next((len(run) for run in _MARKETING_WORDS if words[at : at + len(run)] == run), 0)
        if not size:
            out.append(words[at])
        at += max(size, 1)
    return out


def _is_model(text: str) -> bool:
    """Whether a text is a model number: "SC-141", or its canonical form, a word and then a number ("sc 141")."""
    words = split_words(text)
    if model_numbers(text):
        return True
    return len(words) > 1 and words[-2] not in STOP_WORDS and words[-2].isalpha() and bool(_NUMBER.match(words[-1]))


def _merged(ranked: Sequence[str], dropped: list[tuple[str, str]]) -> list[str]:
    """One keyword of each group of synonyms, in the given order, most popular first."""
    bare = {keyword: _bare(keyword) for keyword in ranked}
    same: dict[tuple[str, ...], str] = {}
    for keyword in ranked:
        # In an unspaced script the order of characters is the word itself.
        words = bare[keyword]
        first = same.setdefault(tuple(words if is_unspaced(keyword) else sorted(words)), keyword)
        if first != keyword:
            dropped.append((keyword, f"same words as {first!r}"))
    # "boots" beside "hiking boots" says no more; "boots" beside "boots tree" does.
    out = []
    for keyword in same.values():
        longer = [
            other
            for other in same.values()
            if len(bare[other]) > len(bare[keyword])
            and bare[other][-1] == bare[keyword][-1]
            and _holds(bare[other], bare[keyword])
        ]
        if longer:
            dropped.append((keyword, f"less specific than {longer[0]!r}"))
        else:
            out.append(keyword)
    return out
