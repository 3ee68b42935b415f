"""What the package takes for the same query, for a word of a text, and for the text of an item."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import polars as pl

# -- queries: when are two the same? --


def normalise_query(text: str) -> str:
    """Case-folded, compatibility-normalised (NFKC), with single spaces between words and none around.

    >>> normalise_query("  Xbox　３６０ ")
    'xbox 360'
    """
    if text.isascii():
        return " ".join(text.lower().split())
    # Folding can bring back what normalising had composed and the other way round, so both run twice (Unicode D147).
    for _ in range(2):
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold())
    return " ".join(text.split())


def normalise_queries(queries: pl.Series) -> pl.Series:
    """:func:`normalise_query` of a whole String column; each distinct text is normalised once. Null becomes ""."""
    # Queries repeat: work on the distinct ones, and join.
    texts = queries.cast(pl.String).fill_null("")
    distinct = texts.unique()
    normal = pl.Series([normalise_query(text) for text in distinct.to_list()], dtype=pl.String)
    table = pl.DataFrame({"text": distinct, "normal": normal})
    joined = pl.DataFrame({"text": texts}).join(table, on="text", how="left", maintain_order="left")
    return joined["normal"].alias(queries.name)


# -- words: what search, keywords and fusion count --

# Chinese, Japanese, Thai, Lao, Khmer, Burmese: written without spaces, so every character is a word of its own.
UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# Combining marks belong to the word around them (Devanagari vowels, accents that NFKC cannot compose).
_MARKS: Final = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0903\u093a-\u094f"
    "\u0980-\u0983\u09bc-\u09d7\u0a01-\u0a03\u0a3c-\u0a51\u0abc-\u0acd\u0b3c-\u0b57\u0bbe-\u0bd7"
    "\u0c3e-\u0c56\u0cbc-\u0cd6\u0d3e-\u0d57"
)
_WORD: Final = re.compile(rf"[{UNSPACED}]|\d+(?:[./]\d+)*|(?:[^\W\d_{UNSPACED}]|[{_MARKS}])+")
# The same in a text as it is shown, where apostrophes stand within words.
_SHOWN_WORD: Final = re.compile(
    rf"[{UNSPACED}]|\d+(?:[./]\d+)*|(?:[^\W\d_{UNSPACED}]|[{_MARKS}]|(?<=[^\W\d_])['’ʼ`´](?=[^\W\d_]))+"
)
_APOSTROPHES: Final = str.maketrans("", "", "'’ʼ`´")
_UNSPACED_CHARACTER: Final = re.compile(rf"[{UNSPACED}]")
_UNSPACED_RUN: Final = re.compile(rf"[{UNSPACED}]+")
_TWO_LETTERS: Final = re.compile("(?<=[aou])e|(?<=a)a")  # what ä, ö, ü, ø, å are spelt with beside their letter


# Accents that people leave out when they type: on Latin and Greek letters, Hebrew points, Arabic vowel signs. Marks
# that make another letter (Cyrillic и and й, Japanese か and が, Indic vowels) stay.
_ACCENTS: Final = re.compile(
    "(?<=[a-z\u0370-\u03ff])[\u0300-\u036f]+|[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]"
)
_LETTERS: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ё": "е"}
    | dict.fromkeys("أإآٱ", "ا")
)


def fold(text: str) -> str:
    """Casefolded NFKC text without accents and apostrophes: "Crème" is creme, and "men's" is mens.

    >>> fold("Größe, ŁÓDŹ")
    'grosse, lodz'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).casefold().translate(_LETTERS)
        text = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))
    return text.casefold().translate(_APOSTROPHES)


def split_words(text: str) -> list[str]:
    """Words of a text, in order: "12-Gauge 5.5in" gives 12, gauge, 5.5, in; each Chinese character is a word."""
    return _WORD.findall(fold(text))


def word_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where words stand in a text that is not folded: [start, end) in characters.

    >>> list(word_spans("Men's 12-Gauge"))
    [(0, 5), (6, 8), (9, 14)]
    """
    return (found.span() for found in _SHOWN_WORD.finditer(text))


def with_words(text: str, change: Callable[[str], str]) -> str:
    """The folded text with each word of a spaced script, or number, as ``change`` gives it; all else stays.

    >>> with_words("Red-Shoe 运动鞋", str.upper)
    'RED-SHOE 运动鞋'
    """
    return _WORD.sub(lambda found: found[0] if is_unspaced(found[0]) else change(found[0]), fold(text))


def with_runs(text: str, change: Callable[[str], str]) -> str:
    """The text with each run of a script that is written without spaces as ``change`` gives it; all else stays."""
    return text if text.isascii() else _UNSPACED_RUN.sub(lambda found: change(found[0]), text)


def unspaced_runs(text: str) -> list[str]:
    """The runs of scripts that are written without spaces: "Nike 运动鞋 红色" gives 运动鞋, 红色."""
    return [] if text.isascii() else _UNSPACED_RUN.findall(fold(text))


def one_letter(word: str) -> str:
    """A folded word as it folds where ä, ö, ü, ø, å are not spelt with a second letter: "groesse" gives grosse."""
    return _TWO_LETTERS.sub("", word)


def is_unspaced(text: str) -> bool:
    """Whether the text holds a character of a script that is written without spaces."""
    return not text.isascii() and _UNSPACED_CHARACTER.search(text) is not None


def completion_key(text: str) -> str:
    """The words of a text as search compares them, one blank between, and one behind where the last is complete.

    >>> completion_key("Größe 12-ga"), completion_key("Red "), completion_key("运动鞋")
    ('grosse 12 ga', 'red ', '运 动 鞋')
    """
    plain = text.isascii() and text.islower() and text.replace(" ", "").isalpha()
    words = text.split() if plain else split_words(text)
    key = " ".join(words) + (" " if words and text[-1].isspace() else "")
    return text if key == text else key  # most queries are their own key: no second text in memory


# -- items: what they say --

ITEM_FIELDS: Final = ("title", "brand", "category", "attributes", "seller", "description", "transcript", "host")


def item_texts(items: pl.DataFrame, fields: Sequence[str], distinct: bool = True) -> list[str]:
    """One text per item: the values of the given columns in the given order, joined by blanks.

    Args:
        items: an item table.
        fields: of :data:`ITEM_FIELDS`; ``category`` is the path, ``attributes`` all attribute values.
        distinct: leave out a value that the text before it holds already ("Acme shoe" needs no brand "acme"); a search
            that weighs words by how often they occur takes all of them.

    Raises:
        ValueError: a field is not a text column of the item table.
    """
    unknown = [field for field in fields if field not in ITEM_FIELDS]
    if unknown:
        raise ValueError(f"unknown item text field {unknown[0]!r}; choose from {', '.join(ITEM_FIELDS)}")
    values = {
        "title": pl.concat_list("title"),
        "brand": pl.concat_list("brand"),
        "category": pl.col("category"),
        "attributes": pl.col("attributes").list.eval(pl.element().struct.field("value")),
        "seller": pl.concat_list("seller"),
        "description": pl.concat_list("description"),
        "transcript": pl.concat_list("transcript"),
        "host": pl.concat_list("host"),
    }
    columns = [items.select(values[field]).to_series().to_list() for field in fields]
    join = _joined_distinct if distinct else " ".join
    return [join([value for part in parts for value in part or () if value]) for parts in zip(*columns, strict=True)]


def _joined_distinct(values: Sequence[str]) -> str:
    text = folded = ""
    for value in values:
        if f" {value.casefold()} " not in f" {folded} ":
            text = f"{text} {value}" if text else value
            folded = text.casefold()
    return text
