"""One spelling per query: what counts as 'the same query' everywhere."""

import unicodedata

import polars as pl


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
    texts = queries.cast(pl.String).fill_null("")
    distinct = texts.unique()
    normal = pl.Series([normalise_query(text) for text in distinct.to_list()], dtype=pl.String)
    table = pl.DataFrame({"text": distinct, "normal": normal})
    joined = pl.DataFrame({"text": texts}).join(table, on="text", how="left", maintain_order="left")
    return joined["normal"].alias(queries.name)
