"""The truth on disk: arrays (``.npy``), JSON and one Parquet table of query texts, in ``market/`` of a dataset."""

from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import polars as pl

from onesearch.common.artefact import read_json, read_manifest, write_json, write_manifest
from onesearch.market.click_truth import Visits
from onesearch.market.market_catalogue import MarketCatalogue
from onesearch.market.market_kinds import MarketKinds
from onesearch.market.market_queries import Queries
from onesearch.market.market_settings import MarketSettings
from onesearch.market.market_shoppers import Shoppers
from onesearch.market.needs import Needs

FOLDER: Final = "market"
FORMAT: Final = 2
_T = TypeVar("_T", MarketCatalogue, MarketKinds, Needs, Shoppers, Queries, Visits)


def save_table(
    folder: Path, name: str, table: MarketCatalogue | MarketKinds | Needs | Shoppers | Queries | Visits
) -> None:
    """Arrays as ``name.field.npy``; lists of texts together as ``name.json`` or, for queries, Parquet."""
    lists: dict[str, list[str]] = {}
    for field in fields(table):
        value = getattr(table, field.name)
        if isinstance(value, np.ndarray):
            np.save(folder / f"{name}.{field.name}.npy", value, allow_pickle=False)
        else:
            lists[field.name] = value
    if isinstance(table, Queries):
        pl.DataFrame(lists).write_parquet(folder / f"{name}.parquet")
    elif lists:
        write_json(folder / f"{name}.json", lists)


def load_array(folder: Path, name: str) -> Any:
    """One array of the truth; never unpickles."""
    return np.load(folder / f"{name}.npy", allow_pickle=False)


def load_table(folder: Path, name: str, kind: type[_T]) -> _T:
    """The dataclass written by :func:`save_table`."""
    parts: dict[str, Any] = {}
    lists: dict[str, list[str]] = {}
    if (folder / f"{name}.parquet").is_file():
        lists = pl.read_parquet(folder / f"{name}.parquet").to_dict(as_series=False)
    elif (folder / f"{name}.json").is_file():
        lists = dict(read_json(folder / f"{name}.json"))
    for field in fields(kind):
        listed = field.name in lists
        parts[field.name] = lists[field.name] if listed else load_array(folder, f"{name}.{field.name}")
    return kind(**parts)


def save_config(folder: Path, config: MarketSettings, figures: dict[str, Any]) -> None:
    """Written last: its presence means that the truth is complete."""
    write_manifest(folder, {"format": FORMAT, "config": config.marking(), "figures": figures})


def load_config(folder: Path) -> MarketSettings:
    """The config of a complete market.

    Raises:
        FileNotFoundError: no truth there, or an unfinished one.
        ValueError: written by a version with another format.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise FileNotFoundError(
            f"{folder}: no truth of a market (manifest.json is missing); "
            "only datasets written by `onesearch market make` have one"
        )
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{folder}: market format {manifest.get('format')!r}, but this version reads {FORMAT}; make it again"
        )
    return MarketSettings.model_validate(manifest["config"])
