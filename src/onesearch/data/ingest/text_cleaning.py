"""HTML out of texts: entities and tags, and characters that nobody sees: what shops export was often made for pages."""

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

# Tags of HTML by name: "<3", "size <M>" and "a < b" stay.
_NAMES: Final = (
    "a|abbr|article|b|big|blockquote|body|br|center|code|dd|div|dl|dt|em|font|footer|h[1-6]|head|header|hr|html|i|iframe|"
    "img|input|label|li|link|main|meta|nav|ol|option|p|pre|s|script|section|select|small|span|strike|strong|style|sub|sup|"
    "table|tbody|td|tfoot|th|thead|title|tr|tt|u|ul|video"
)
_UNSEEN: Final = (
    "\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\u00ad\\u200b\\u200e\\u200f\\u2028\\u2029\\u202a-\\u202e\\u2060\\ufeff"
)
_DIRTY: Final = rf"(?i)&(?:#\d+|#x[0-9a-f]+|[a-z][a-z0-9]*);|</?(?:{_NAMES})[\s/>]|<!--"
_ENTITY: Final = re.compile(r"(?i)&(?:#\d+|#x[0-9a-f]+|[a-z][a-z0-9]*);")
_SILENT: Final = re.compile(r"(?is)<(script|style)\b[^>]*>.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)")
_TAG: Final = re.compile(rf"(?is)</?(?:{_NAMES})(?:\s[^<>]*)?/?>")
# A letter in angle brackets, which may be a tag or a size.
_LETTER: Final = re.compile(r"<[ABIPQSU]>")
_CONTROL: Final = re.compile(f"[{_UNSEEN}]")
# UTF-8 read as Latin-1 ("Ã¼"), and the sign for a character that was lost.
_MOJIBAKE: Final = "\ufffd|Ã[\u0080-\u00bf\u0152-\u0178\u2013-\u2122]|â€[\u0080-\u00bf\u0152-\u0178\u2013-\u2122]"


def clean(text: str) -> str:
    """The text without HTML tags, its entities as characters, without control and invisible characters.

    >>> clean("Men&#39;s <b>Steel</b> Watch &amp;amp; Strap<br>size <M>")
    "Men's Steel Watch & Strap size <M>"
    """
    # Entities may hide tags, and entities again ("&amp;amp;"): two rounds find what exports do in practice.
    for _ in range(2):
        text = _without_tags(_SILENT.sub(" ", text))
        text = html.unescape(text) if _ENTITY.search(text) else text
    # A tab or line end that HTML left behind parts words; an invisible character parts nothing.
    text = _CONTROL.sub("", _without_tags(text).replace("\x00", " "))
    return " ".join(text.split())


def _without_tags(text: str) -> str:
    """The text with a blank for each tag.

    >>> _without_tags("<B>T-shirt</B> <S>"), _without_tags("One<P>Two<br>")
    (' T-shirt  <S>', 'One Two ')
    """
    tags = set(_TAG.findall(text))
    # A letter that is never closed is a size; a paragraph need not be closed, but rarely is the only tag of a page.
    closed = {tag.strip("</ >").upper() for tag in tags if tag.startswith("</")}
    sizes = {tag for tag in tags if _LETTER.fullmatch(tag) and tag[1] not in closed}
    if tags - sizes:
        sizes.discard("<P>")
    return _TAG.sub(lambda tag: tag[0] if tag[0] in sizes else " ", text)


def cleaned(
    frame: pl.DataFrame, columns: Mapping[str, Sequence[str]]
) -> tuple[pl.DataFrame, Counter[str], Counter[str]]:
    """The frame with its text columns, and lists of texts, cleaned.

    Args:
        frame: rows of a file, [n].
        columns: our name -> columns of the file; those that are neither texts nor lists of texts stay as they are.

    Returns:
        The frame; what was cleaned and what looks as if read in a wrong encoding, counted by our names.
    """
    repaired, suspicious = Counter[str](), Counter[str]()
    for ours, name in dict.fromkeys((ours, name) for ours, named in columns.items() for name in named):
        column = frame[name]
        if column.dtype == pl.String:
            dirty = column.str.contains(f"{_DIRTY}|[{_UNSEEN}]").fill_null(False)
            suspicious[f"{ours}: looks like another encoding"] += int(column.str.contains(_MOJIBAKE).sum())
        elif column.dtype == pl.List(pl.String):
            found = pl.element().str.contains(f"{_DIRTY}|[{_UNSEEN}]")
            dirty = column.list.eval(found).list.any().fill_null(False)
        else:
            continue
        if dirty.any():
            # Few texts need it: these alone become Python's.
            values = column.to_list()
            for row in dirty.arg_true().to_list():
                value = values[row]
                values[row] = clean(value) if isinstance(value, str) else [clean(part or "") for part in value]
                repaired[f"{ours}: HTML or invisible characters"] += values[row] != value
            frame = frame.with_columns(pl.Series(name, values, dtype=column.dtype))
    return frame, +repaired, +suspicious
