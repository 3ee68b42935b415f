"""Step 3, preference calibration: a query's keywords seen with a shopper's recent searches and clicks (docs/method.md,
section 4).

The result belongs to the query *and* the history; it is never stored with the query's thought.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, Protocol, runtime_checkable

from onesearch.data.text import is_unspaced, split_words
from onesearch.understanding.catalogue_vocabulary import canonical, singular
from onesearch.understanding.keyword_extraction import holds_phrase
from onesearch.understanding.thought import MOST_KEYWORDS, Grounding, Thought

PREFERENCE_TYPES: Final = frozenset({"Brand", "Style", "Audience", "Color"})
_ITEMS_FOR_A_PREFERENCE: Final = 2
_LONGEST_PHRASE: Final = 6  # words
_TITLES: Final = 100_000  # whose phrases are remembered


class TypedGrounding(Grounding, Protocol):
    """A catalogue that also knows the attribute types of its phrases."""

    @property
    def kinds(self) -> Mapping[str, str]:
        """Attribute type of each canonical phrase that has one."""


@dataclass(frozen=True)
class HistoryTexts:
    """What is known of a shopper, as texts: recent queries, titles of recently clicked items, and a profile in words.

    The history by item ids, as the model reads it, is :class:`~onesearch.search.shopper_history.ShopperHistory`.
    """

    queries: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    profile: str = ""


@runtime_checkable
class Calibrator(Protocol):
    """Who does step 3 in place of :func:`calibrate`, such as a language model. ``name`` and ``version`` are part of
    the cache key.
    """

    name: str
    version: str

    async def calibrate(self, thought: Thought, history: HistoryTexts) -> tuple[str, ...]:
        """At most eight keywords for one shopper.

        Raises:
            ThoughtError: no usable answer; the message says why.
        """


@dataclass(frozen=True)
class Injected:
    """Keywords that hold those of the item that was interacted with: for training artefacts only.

    A type of its own, and no sequence, so that neither a thought nor a cache of thoughts takes it for keywords.
    """

    keywords: tuple[str, ...]
    injected: Literal[True] = field(default=True, init=False)


class TitlePreferences:
    """The phrases of titles that may be a preference: those of a catalogue that have one of ``PREFERENCE_TYPES``.

    Made once for many shoppers, whose histories share titles: each is looked through once.
    """

    def __init__(self, words: Grounding) -> None:
        self.kinds: Mapping[str, str] = getattr(words, "kinds", {})
        self._words = words
        self._typed = frozenset(phrase for phrase, kind in self.kinds.items() if kind in PREFERENCE_TYPES)
        self._beginnings = frozenset(parts[0] for phrase in self._typed if (parts := split_words(phrase)))
        self.phrases = lru_cache(_TITLES)(self._phrases)

    def _phrases(self, title: str) -> frozenset[str]:
        split, found = split_words(title), set[str]()
        for start, word in enumerate(split):
            # Most words begin no such phrase, alone or in the plural.
            if word not in self._beginnings and singular(word) not in self._beginnings:
                continue
            for end in range(start + 1, min(start + _LONGEST_PHRASE, len(split)) + 1):
                phrase = self._words.keyword(canonical(split[start:end]))
                if phrase is not None and phrase in self._typed:
                    found.add(phrase)
        return frozenset(found)


def calibrate(
    thought: Thought, history: HistoryTexts, words: Grounding, preferences: TitlePreferences | None = None
) -> tuple[str, ...]:
    """Personalised keywords of a thought, at most eight (4.2); ``preferences`` are those of ``words``, made once.

    In pseudo-code::

        support of a keyword = mean over its words of the texts of the history that say the word
        order the thought's keywords by support, equal ones as they were
        preferences = brands, styles, audiences and colours that at least two items of the history name, most items
            first; none that the query rules out, and none of a type that the query settles itself
        the ordered keywords, then as many preferences as there is room for

    Types are those of a catalogue with ``kinds`` (:class:`TypedGrounding`); any other catalogue adds nothing. A thought
    without keywords stays without: a preference alone is no answer to a query.
    """
    if not thought.keywords:
        return ()
    # Texts of the history that say a word, by singular word.
    texts = [text for text in (*history.queries, *history.items, history.profile) if text]
    said = Counter(word for text in texts for word in {singular(word) for word in split_words(text)})
    support = {keyword: _support(keyword, texts, said) for keyword in thought.keywords}
    ordered = sorted(thought.keywords, key=lambda keyword: -support[keyword])
    preferred = _preferences(thought, history, words, preferences or TitlePreferences(words))
    return tuple(dict.fromkeys([*ordered, *preferred]))[:MOST_KEYWORDS]


def inject(keywords: Sequence[str], item_keywords: Sequence[str]) -> Injected:
    """Calibrated keywords with those of the clicked item, which all survive up to eight; the others fill the room.

    Keywords that stay keep their order and come first.
    """
    wanted = list(dict.fromkeys(item_keywords))[:MOST_KEYWORDS]
    own = list(dict.fromkeys(keywords))
    room = MOST_KEYWORDS - len(wanted)
    # Own keywords that the item does not have fill the room; the order of what stays is the old one.
    others = [keyword for keyword in own if keyword not in wanted][:room]
    stay = [keyword for keyword in own if keyword in wanted or keyword in others]
    return Injected((*stay, *(keyword for keyword in wanted if keyword not in stay)))


def _support(keyword: str, texts: Sequence[str], said: Mapping[str, int]) -> float:
    """How often a history says a keyword: mean over its words; characters of an unspaced script count as a run."""
    if is_unspaced(keyword):
        return float(sum(holds_phrase(text, keyword) for text in texts))
    parts = [singular(word) for word in split_words(keyword)]
    return sum(said.get(word, 0) for word in parts) / max(len(parts), 1)


def _preferences(thought: Thought, history: HistoryTexts, words: Grounding, preferences: TitlePreferences) -> list[str]:
    if not preferences.kinds:
        return []
    # A query that names a brand has settled the brand.
    stated = {attribute.type for attribute in thought.analysis.attributes if not attribute.negated}
    ruled_out = [attribute.value for attribute in thought.analysis.attributes if attribute.negated]
    # How many clicked items name a phrase.
    items = Counter(phrase for title in history.items for phrase in preferences.phrases(title))
    fitting = [
        phrase
        for phrase, count in items.items()
        if count >= _ITEMS_FOR_A_PREFERENCE
        and preferences.kinds[phrase] not in stated
        and not any(holds_phrase(phrase, value) for value in ruled_out)
    ]
    return sorted(fitting, key=lambda phrase: (-items[phrase], -words.popularity(phrase), phrase))
