"""Text to words: light Unicode normalisation, numbers split from units, single characters for unspaced scripts."""

import re
import unicodedata
from typing import Final

# Chinese, Japanese, Thai, Lao, Khmer, Burmese: written without spaces, so every character is a word of its own.
UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# Combining marks belong to the word around them (Devanagari vowels, accents that NFKC cannot compose).
_MARKS: Final = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0903\u093a-\u094f"
    "\u0980-\u0983\u09bc-\u09d7\u0a01-\u0a03\u0a3c-\u0a51\u0abc-\u0acd\u0b3c-\u0b57\u0bbe-\u0bd7"
    "\u0c3e-\u0c56\u0cbc-\u0cd6\u0d3e-\u0d57"
)
_WORD: Final = re.compile(rf"[{UNSPACED}]|\d+(?:[./]\d+)*|(?:[^\W\d_{UNSPACED}]|[{_MARKS}])+")
_APOSTROPHES: Final = str.maketrans("", "", "'’ʼ`´")
_UNSPACED_CHARACTER: Final = re.compile(rf"[{UNSPACED}]")


def fold(text: str) -> str:
    """Casefolded NFKC text; apostrophes dropped so that "men's" and "mens" agree."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return text.casefold().translate(_APOSTROPHES)


def split_words(text: str) -> list[str]:
    """Words of a text, in order: "12-Gauge 5.5in" gives 12, gauge, 5.5, in; each Chinese character is a word."""
    return _WORD.findall(fold(text))


def is_unspaced(text: str) -> bool:
    """Whether the text holds a character of a script that is written without spaces."""
    return not text.isascii() and _UNSPACED_CHARACTER.search(text) is not None
