"""Yes and no out of a file's columns, in the words of shops."""

import re
from collections.abc import Mapping
from typing import Final

import polars as pl


def _words(table: str) -> frozenset[str]:
    return frozenset(word.strip() for line in table.strip().splitlines() for word in line.split("|"))


# Yes and no, then in stock and sold out; lower case, single spaces. German, French, Spanish, Portuguese, Italian,
# Dutch, Danish, Norwegian, Swedish, Finnish, Polish, Czech, Turkish, Russian, Chinese, Japanese, Korean.
YES: Final = _words(
    """
    true|t|yes|y|ja|j|oui|sí|si|sim|sì|tak|ano|kyllä|evet|да|是|有|はい|예|on|x|✓|✔
    in stock|instock|available|in store|limited availability|limitedavailability|low stock|onlineonly|instoreonly
    lagernd|auf lager|vorrätig|verfügbar|lieferbar|sofort lieferbar|am lager
    en stock|disponible|dispo|hay stock|en existencia|disponibles|em estoque|em stock|disponível|disponibile
    in magazzino|op voorraad|beschikbaar|leverbaar|på lager|i lager|finns i lager|varastossa|saatavilla
    dostępny|dostępne|dostępna|w magazynie|skladem|na skladě|stokta|stokta var|mevcut|в наличии|есть|есть в наличии
    有货|现货|有库存|在售|有貨|現貨|在庫あり|有り|あり|○|있음|재고 있음|판매중
    """
)
NO: Final = _words(
    """
    false|f|no|n|nein|non|não|nao|nee|nej|nei|nie|ne|ei|hayır|нет|否|无|無|いいえ|아니요|off
    out of stock|outofstock|oos|sold out|soldout|unavailable|not available|not in stock|discontinued|no stock
    nicht lagernd|nicht auf lager|nicht vorrätig|nicht verfügbar|nicht lieferbar|ausverkauft|vergriffen
    épuisé|rupture|rupture de stock|en rupture|en rupture de stock|indisponible|non disponible|hors stock
    agotado|agotada|sin stock|sin existencias|no disponible|esgotado|esgotada|sem estoque|sem stock|indisponível
    esaurito|non disponibile|niet op voorraad|uitverkocht|niet beschikbaar|niet leverbaar|udsolgt|utsolgt|slutsåld|slut
    ikke på lager|ej i lager|loppu|loppunut|ei varastossa|niedostępny|niedostępne|niedostępna|brak|wyprzedane
    vyprodáno|není skladem|nedostupné|stokta yok|tükendi|нет в наличии|распродано|отсутствует
    缺货|无货|售罄|已售罄|下架|已下架|缺貨|無貨|售完
    在庫なし|在庫切れ|品切れ|売り切れ|なし|×|품절|없음|재고 없음|일시품절
    """
)


def flag(frame: pl.DataFrame, name: str, words: Mapping[str, bool] | None = None) -> pl.Expr:
    """A column as Boolean: words in any case, and numbers, of which those above zero mean yes; null for other words.

    Args:
        frame: rows of a file.
        name: the column.
        words: more words of the file's own and what they mean; they go before the known ones.
    """
    if frame.schema[name] == pl.Boolean:
        return pl.col(name)
    # "https://schema.org/InStock", "out_of_stock" and "Out-of-Stock" are words like the others.
    word = pl.col(name).cast(pl.String).str.normalize("NFKC").str.to_lowercase()
    word = word.str.replace(r"^https?://schema\.org/", "").str.replace_all(r"[\s_\-\u2010-\u2015.!]+", " ")
    word = word.str.strip_chars()
    # A sign of minus may be any of several characters; counts go through tables of floats ("3.0").
    count = pl.col(name).cast(pl.String).str.strip_chars().str.replace(r"^[\u2212\u2010-\u2015]", "-")
    number = count.cast(pl.Float64, strict=False)
    known: pl.Expr = pl.when(word.is_in(list(YES))).then(True).when(word.is_in(list(NO))).then(False)
    known = pl.when(number.is_not_nan()).then(number > 0).otherwise(known)
    for own, value in (words or {}).items():
        known = pl.when(word == re.sub(r"[\s_\-.!]+", " ", own.lower()).strip()).then(pl.lit(value)).otherwise(known)
    return known


def unknown_words(frame: pl.DataFrame, name: str | None, read: pl.Expr) -> pl.Series:
    """Where the cells of a column say something that :func:`flag` reads as nothing, bool [n]."""
    if name is None:
        return pl.repeat(False, len(frame), dtype=pl.Boolean, eager=True)
    said = pl.col(name).cast(pl.String).str.strip_chars().fill_null("") != ""
    return frame.select(unknown=said & read.is_null())["unknown"]
