"""The hand-written words of the market: YAML tables in ``words/``, each headed by its notation."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def read_words(table: str) -> dict[str, Any]:
    """One of ``catalogue``, ``attributes``, ``titles``, ``needs`` and ``queries``; read once, so never change it."""
    text = (files("onesearch.market") / "words" / f"{table}.yaml").read_text(encoding="utf-8")
    # The safe loader of libyaml, where it is built in, takes a tenth of the time.
    words: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return words


def attribute_figures(figure: str) -> dict[str, float]:
    """``slots``, ``present``, ``stated`` or ``asked`` of every attribute type (``attributes.yaml``)."""
    return {kind: entry[figure] for kind, entry in read_words("attributes").items()}
