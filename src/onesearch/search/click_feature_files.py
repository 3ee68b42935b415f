"""Click features of a log, and what they read of its catalogue, counted once and mapped into memory ever after.

A server starts from them in the time it takes to open a file, and several on one machine share them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from onesearch.common.array_checks import are_finite, are_numbers, are_offsets, are_rising
from onesearch.common.artefact import read_json, write_json
from onesearch.common.layered_table import LayeredTable
from onesearch.common.ragged import Ragged
from onesearch.common.sparse_files import checked_csr
from onesearch.common.text_numbers import TextNumbers
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.pair_counts import Lift, PairCounts
from onesearch.index.tensor_files import read_arrays, write_arrays
from onesearch.search.click_features import ClickFeatures, ItemTraits, TraitClicks, TraitLists, WordClicks

CLICK_FEATURES: Final = "click_features"
"""The folder beside the statistics of the same log."""
_ARRAYS, _NAMES = "arrays.safetensors", "names.json"
_LIFTS: Final = ("item", "category")
_TRAITS: Final = ("attribute", "title")
Arrays = dict[str, NDArray[Any]]


def save_click_features(features: ClickFeatures, items: pl.DataFrame, folder: Path) -> None:
    """Write the features of a log over its catalogue: arrays, and the names of what they count."""
    words, traits, arrays = features.words, features.item_traits(items), dict[str, NDArray[Any]]()
    for name, lift in zip(_LIFTS, (words.of_item, words.of_category), strict=True):
        arrays |= {f"{name}.keys": lift.pairs.keys, f"{name}.counts": lift.pairs.counts}
        arrays |= {f"{name}.contexts": lift.contexts, f"{name}.things": lift.things}
    lists = (traits.attributes.lists, traits.title.lists)
    for name, clicks, of_items in zip(_TRAITS, (words.of_attribute, words.of_title), lists, strict=True):
        seen = clicks.seen
        arrays |= {f"{name}.unseen": clicks.unseen, f"{name}.seen": seen.data}
        arrays |= {f"{name}.columns": seen.indices.astype(np.int32), f"{name}.rows": seen.indptr.astype(np.int64)}
        arrays |= {f"{name}.values": of_items.values, f"{name}.offsets": of_items.offsets}
    arrays["categories"] = traits.categories.base.cpu().numpy()
    write_arrays(folder / _ARRAYS, arrays)
    # Written last; every list in the order of its numbers.
    names = {"words": list(words.words), "category": list(words.categories)}
    names |= {"attribute": list(words.of_attribute.names), "title": list(words.of_title.names)}
    smoothing = {"item": words.of_item.smoothing, "category": words.of_category.smoothing}
    write_json(folder / _NAMES, {"names": names, "smoothing": smoothing})


def load_click_features(statistics: ClickStatistics, folder: Path) -> tuple[ClickFeatures, ItemTraits]:
    """What :func:`save_click_features` wrote; ``statistics`` are those of the same log.

    Raises:
        FileNotFoundError: the folder lacks a file.
        ValueError: the arrays do not fit together, or not to the statistics.
    """
    about = read_json(folder / _NAMES)
    arrays = read_arrays(folder / _ARRAYS)
    try:
        number = {kind: TextNumbers(names) for kind, names in about["names"].items()}
        words, categories = number["words"], number["category"]
        items, contexts = len(statistics.clicked), len(words) + 1
        of_item = _lift(arrays, "item", contexts, items, float(about["smoothing"]["item"]))
        of_category = _lift(
            arrays, "category", contexts, max(len(categories), 1), float(about["smoothing"]["category"])
        )
        of_trait = [_trait_clicks(arrays, name, number[name], len(words)) for name in _TRAITS]
        traits = _item_traits(arrays, items, [len(categories), *(len(number[name]) for name in _TRAITS)])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}: {type(error).__name__} {error}; make the run's stage again") from None
    except ValueError as error:
        raise ValueError(f"{folder}: {error}; make the run's stage again") from None
    return ClickFeatures(statistics, WordClicks(words, categories, of_item, of_category, *of_trait)), traits


def _lift(arrays: Arrays, name: str, contexts: int, things: int, smoothing: float) -> Lift:
    """Counts of pairs of ``contexts`` words and as many things."""
    keys, counts = arrays[f"{name}.keys"], arrays[f"{name}.counts"]
    of_context, of_thing = arrays[f"{name}.contexts"], arrays[f"{name}.things"]
    fit = are_rising(keys) and are_finite(counts, keys.shape)
    if not (fit and are_finite(of_context, (contexts,)) and are_finite(of_thing, (things,)) and smoothing > 0):
        raise ValueError(f"the counts of {name} are not those of {contexts} words and {things} things")
    return Lift(PairCounts(keys, counts), of_context, of_thing, smoothing)


def _trait_clicks(arrays: Arrays, name: str, names: Mapping[str, int], words: int) -> TraitClicks:
    """Lifts of named traits for ``words`` words."""
    unseen, seen = arrays[f"{name}.unseen"], arrays[f"{name}.seen"]
    if not (are_finite(unseen, (words,)) and are_finite(seen, seen.shape)):
        raise ValueError(f"the lifts of {name} are not those of {words} words")
    columns, rows = arrays[f"{name}.columns"], arrays[f"{name}.rows"]
    return TraitClicks(names, unseen, checked_csr(seen, columns, rows, len(names), words))


def _item_traits(arrays: Arrays, items: int, kinds: list[int]) -> ItemTraits:
    """Traits of ``items`` items, of so many kinds: categories, attributes, title words."""
    categories = arrays["categories"]
    lists = [Ragged(arrays[f"{name}.values"], arrays[f"{name}.offsets"]) for name in _TRAITS]
    fit = len(categories) == items and are_numbers(categories, np.int64, kinds[0], least=-1)
    for one, kind in zip(lists, kinds[1:], strict=True):
        fit = fit and are_offsets(one.offsets, one.values) and are_numbers(one.values, np.int32, kind)
        fit = fit and len(one) == items
    if not fit:
        raise ValueError(f"the traits are not those of {items} items")
    attributes, title = (TraitLists.over(one) for one in lists)
    return ItemTraits(LayeredTable.over(torch.from_numpy(categories)), attributes, title)
