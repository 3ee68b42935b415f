"""Reading a query text without ever having seen it: known phrases (longest match), the form of the query, the ban."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from onesearch.market.word_tables import read_words

Kind = Literal["noun", "value", "brand", "topic", "trait", "model"]
Entry = tuple[Kind, int]

_MODEL: Final = re.compile(r"[a-z]{2}\d{3,4}")
_SHORTEST_CORRECTED: Final = 4


def template_words() -> frozenset[str]:
    """The words of the templates themselves, which name nothing."""
    texts = " ".join(template for forms in read_words("queries")["templates"].values() for template in forms)
    return frozenset(re.sub(r"\{\w+\}", " ", texts).split())


@dataclass(frozen=True)
class Reading:
    """What stands in a text: its form and the phrases found, in order, as (phrase, entry).

    ``banned`` holds the value that follows a word of negation; it is not among ``found``.
    """

    form: str
    found: tuple[tuple[str, Entry], ...]
    banned: tuple[tuple[str, int], ...]

    def phrases(self, kind: Kind) -> list[tuple[str, int]]:
        """The phrases of a kind with their numbers, in order, each once."""
        return list(dict.fromkeys((phrase, number) for phrase, (its_kind, number) in self.found if its_kind == kind))


class Reader:
    """Finds known phrases in texts. ``phrases``: phrase to all that it may stand for, in order of preference."""

    def __init__(self, phrases: Mapping[str, tuple[Entry, ...]]) -> None:
        self._phrases = phrases
        self._longest = max((phrase.count(" ") + 1 for phrase in phrases), default=1)
        cues: dict[str, list[str]] = read_words("queries")["cues"]
        self._cues = [(form, re.compile(rf"\b(?:{'|'.join(words)})\b")) for form, words in cues.items()]
        self._filler = template_words()
        self._words = {word for phrase in phrases for word in phrase.split()}
        self._dropped: dict[str, str] = {}
        for word in sorted(self._words):
            if len(word) >= _SHORTEST_CORRECTED:
                for shorter in _without_a_letter(word):
                    self._dropped.setdefault(shorter, word)

    def read(self, text: str) -> Reading:
        """Read a normalised query text; words that mean nothing here are passed over."""
        # The first form whose cue is there; what follows a negation is ruled out.
        form, ban_from = "plain", len(text)
        for name, cue in self._cues:
            matches = list(cue.finditer(text))
            if matches:
                form = name
                ban_from = matches[-1].end() if name == "negation" else ban_from
                break
        found = self._scan(text[:ban_from].split())
        banned: list[tuple[str, int]] = []
        for phrase, entry in self._scan(text[ban_from:].split()):
            # Only the first value after "without" is ruled out; what comes later is said in its own right.
            value = next((number for kind, number in self._phrases.get(phrase, ()) if kind == "value"), None)
            if value is not None and not banned:
                banned.append((phrase, value))
            else:
                found.append((phrase, entry))
        return Reading(form, tuple(found), tuple(banned))

    def _scan(self, words: list[str]) -> list[tuple[str, Entry]]:
        words = [self._known(word) for word in words]
        found: list[tuple[str, tuple[Entry, ...]]] = []
        at = 0
        while at < len(words):
            for length in range(min(self._longest, len(words) - at), 0, -1):
                phrase = " ".join(words[at : at + length])
                entries = self._phrases.get(phrase)
                if entries and not (length == 1 and phrase in self._filler):
                    found.append((phrase, entries))
                    break
            else:
                length = 1
                if _MODEL.fullmatch(words[at]):
                    found.append((words[at], (("model", -1),)))
            at += length
        return list(zip((phrase for phrase, _ in found), _choose(found), strict=True))

    def _known(self, word: str) -> str:
        """The word itself, or the known word that it misspells by one letter dropped, doubled or swapped."""
        if word in self._words or word in self._filler or len(word) < _SHORTEST_CORRECTED - 1 or _MODEL.fullmatch(word):
            return word
        for other in (*_without_a_letter(word), *_with_two_swapped(word)):
            if other in self._words:
                return other
        return self._dropped.get(word, word)


def _choose(found: Iterable[tuple[str, tuple[Entry, ...]]]) -> list[Entry]:
    """One meaning per phrase: a word that is noun and value ("clay") is the noun unless another noun stands there."""
    listed = [entries for _, entries in found]
    sure = sum(all(kind == "noun" for kind, _ in entries) for entries in listed)
    return [next((e for e in entries if e[0] != "noun"), entries[0]) if sure else entries[0] for entries in listed]


def _without_a_letter(word: str) -> list[str]:
    return [word[:at] + word[at + 1 :] for at in range(len(word))]


def _with_two_swapped(word: str) -> list[str]:
    return [word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(len(word) - 1)]
