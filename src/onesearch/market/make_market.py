"""Make a market: world, traffic, logged pages and reactions, written as a dataset with its truth beside it."""

import logging
import shutil
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from onesearch.common.artefact import MANIFEST
from onesearch.common.progress import track
from onesearch.common.ragged import Ragged
from onesearch.data.dataset import Dataset
from onesearch.data.records import KINDS, PICTURES_ARCHIVE, TIME
from onesearch.market.click_truth import Truth, Visits
from onesearch.market.logging_engine import LoggingEngine
from onesearch.market.market_kinds import kind_columns
from onesearch.market.market_pictures import draw_pictures, picture_names
from onesearch.market.market_queries import Queries
from onesearch.market.market_settings import MarketSettings
from onesearch.market.market_shoppers import AGE_BANDS, GENDERS
from onesearch.market.market_traffic import QUERY_TYPES
from onesearch.market.market_vocabulary import SLOTS, names_of
from onesearch.market.world import World
from onesearch.market.world_files import FOLDER, save_config, save_table

log = logging.getLogger("onesearch")
CHUNK: Final = 25_000
_JUDGED_QUERIES: Final = 2_000
_JUDGED_PER_QUERY: Final = 12


def numbered(prefix: str, numbers: NDArray[np.integer]) -> pl.Series:
    """Ids such as ``i0``, ``i1``, ..."""
    return pl.select(pl.lit(prefix) + pl.Series(numbers).cast(pl.String)).to_series()


def id_lists(ragged: Ragged) -> pl.Series:
    """A ragged array of item rows as a List(String) column of item ids."""
    ids = numbered("i", ragged.values).to_arrow()
    return pl.Series(pa.LargeListArray.from_arrays(ragged.offsets, ids))


def items_table(world: World) -> pl.DataFrame:
    """The catalogue as the shop sees it."""
    titles, attributes = world.listings()
    catalogue, vocabulary = world.catalogue, world.vocabulary
    paths = pl.Series([list(name) for name in vocabulary.leaf_names], dtype=pl.List(pl.String))
    brands = names_of(catalogue.value_names, catalogue.values[:, SLOTS.index("Brand")])
    table = pl.DataFrame(
        {
            "item_id": numbered("i", np.arange(len(catalogue))),
            "title": titles,
            "category": paths.gather(catalogue.leaves.astype(np.int64)),
            "brand": brands.str.to_titlecase(),
            "price": catalogue.price,
            "attributes": attributes,
            "seller": numbered("seller ", catalogue.sellers),
            "listed_at": pl.Series(catalogue.listed).cast(TIME),
            "in_stock": pl.Series(np.ones(len(catalogue), np.bool_)),
        }
    )
    if world.kinds is None:
        return table
    columns = kind_columns(world.config, vocabulary, catalogue, world.kinds, titles)
    # What shows products has no price, and is nobody's to state attributes of.
    product = pl.col("kind") == KINDS[0]
    table = table.with_columns(**columns)
    nothing = pl.lit([], table.schema["attributes"])
    return table.with_columns(
        price=pl.when(product).then("price"), attributes=pl.when(product).then("attributes").otherwise(nothing)
    )


def users_table(world: World) -> pl.DataFrame:
    """The shoppers as the shop knows them."""
    shoppers = world.shoppers
    return pl.DataFrame(
        {
            "user_id": numbered("u", np.arange(len(shoppers))),
            "gender": names_of(GENDERS, np.where(shoppers.gender_known, shoppers.gender, -1)),
            "age_band": names_of(AGE_BANDS, np.where(shoppers.age_known, shoppers.age, -1)),
        }
    )


def searches_table(visits: Visits, session: NDArray[np.int64], queries: Queries, ids: tuple[str, str]) -> pl.DataFrame:
    """Page views without what was shown on them; ``ids`` are the prefixes of page view and session ids."""
    kinds = names_of(QUERY_TYPES, queries.kind)
    return pl.DataFrame(
        {
            "page_view_id": numbered(ids[0], np.arange(len(visits))),
            "user_id": numbered("u", visits.user),
            "session_id": numbered(ids[1], session),
            "time": pl.Series(visits.time).cast(TIME),
            "query": pl.Series(queries.texts).gather(visits.query.astype(np.int64)),
            "query_type": kinds.gather(visits.query.astype(np.int64)),
        }
    )


def page_lists(
    pages: NDArray[np.integer], clicked: NDArray[np.bool_], ordered: NDArray[np.bool_]
) -> dict[str, pl.Series]:
    """``shown``, ``clicked`` and ``ordered`` of pages of item rows [n, k], -1 for none, as lists of item ids."""
    masks = {"shown": pages >= 0, "clicked": clicked, "ordered": ordered}
    return {
        name: id_lists(Ragged.from_lengths(pages[mask].astype(np.int32), mask.sum(1))) for name, mask in masks.items()
    }


def _judgments(truth: Truth, visits: Visits, shown: NDArray[np.int32], seed: int) -> pl.DataFrame:
    """True levels of items shown for a sample of queries of the first 80 % of the log, as raters would give."""
    rng = np.random.default_rng([seed, 10])
    # The first page view of each of some queries: its first items are judged.
    early = visits.query[: int(0.8 * len(visits))]
    picked = rng.permutation(np.unique(early, return_index=True)[1])[:_JUDGED_QUERIES]
    items = shown[np.sort(picked), :_JUDGED_PER_QUERY]
    query = np.repeat(visits.query[np.sort(picked)], items.shape[1])
    items = items.reshape(-1)
    query, items = query[items >= 0], items[items >= 0]
    return pl.DataFrame(
        {
            "query": pl.Series(truth.queries.texts).gather(query.astype(np.int64)),
            "item_id": numbered("i", items),
            "level": truth.levels(query, items),
        }
    )


def simulate(
    world: World, truth: Truth, titles: list[str], visits: Visits
) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Logged pages int32 [n, page_size], and what was clicked and ordered on them, bool."""
    # Candidates once per query, then pages and reactions chunk by chunk.
    engine = LoggingEngine(titles, truth, world.config.engine, world.config.seed)
    candidates = engine.candidates()
    shown = np.empty((len(visits), world.config.engine.page_size), np.int32)
    clicked, ordered = np.empty(shown.shape, np.bool_), np.empty(shown.shape, np.bool_)
    rng = np.random.default_rng([world.config.seed, 11])
    for start in track(range(0, len(visits), CHUNK), "page views", unit="chunk"):
        rows = slice(start, start + CHUNK)
        part = visits.select(rows)
        shown[rows] = engine.pages(candidates, part, rng)
        reactions = truth.react(part, shown[rows])
        clicked[rows], ordered[rows] = reactions.clicked, reactions.ordered
    return shown, clicked, ordered


def figures(
    visits: Visits,
    queries: Queries,
    shown: NDArray[np.int32],
    clicked: NDArray[np.bool_],
    ordered: NDArray[np.bool_],
) -> dict[str, Any]:
    """Figures of a log that are compared with published ones (``docs/concepts.md``)."""
    clicks, orders = clicked.sum(1), ordered.sum(1)
    plain = queries.kind[visits.query] == 0
    words = np.array([text.count(" ") + 1 for text in queries.texts])[visits.query]
    per_item = np.sort(np.bincount(shown[clicked], minlength=1))[::-1]
    return {
        "page_views": len(visits),
        "distinct_queries": len(queries),
        "complex_share": float(1.0 - plain.mean()),
        "words_per_plain_query": float(words[plain].mean()),
        "words_per_complex_query": float(words[~plain].mean()),
        "clicks_per_page_view": float(clicks.mean()),
        "page_views_with_click": float((clicks > 0).mean()),
        "page_views_with_click_complex": float((clicks > 0)[~plain].mean()),
        "orders_per_click": float(orders.sum() / max(clicks.sum(), 1)),
        "ctr_by_rank": [float(value) for value in clicked.sum(0) / np.maximum((shown >= 0).sum(0), 1)],
        "clicks_on_top_tenth_of_items": float(per_item[: max(1, len(per_item) // 10)].sum() / max(per_item.sum(), 1)),
    }


def make_market(config: MarketSettings, folder: Path) -> Dataset:
    """Make the market of a config and write it as a dataset; the truth goes to its subfolder ``market``."""
    clock = time.perf_counter()
    # An old truth must not pass for that of the new log if this is interrupted.
    truth_folder = folder / FOLDER
    if truth_folder.is_dir():
        (truth_folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(truth_folder)
    # The world, then who searches for what, then the pages that the logging engine shows and what happens on them.
    world = World.build(config)
    items = items_table(world)
    (folder / PICTURES_ARCHIVE).unlink(missing_ok=True)
    if config.pictures:
        folder.mkdir(parents=True, exist_ok=True)
        items = items.with_columns(images=picture_names(config.items, config.pictures))
        draw_pictures(world.catalogue, config.pictures, config.seed, folder)
    traffic, queries, visits = world.traffic(config.n_page_views)
    truth = world.truth(queries)
    log.info("market: world and %s queries after %.1f s", f"{len(queries):,}", time.perf_counter() - clock)
    shown, clicked, ordered = simulate(world, truth, items["title"].to_list(), visits)
    page_views = searches_table(visits, traffic.session, queries, ("p", "s"))
    page_views = page_views.with_columns(**page_lists(shown, clicked, ordered))
    log.info("market: log after %.1f s", time.perf_counter() - clock)
    judgments = _judgments(truth, visits, shown, config.seed)
    dataset = Dataset.write(folder, items, users_table(world), page_views, judgments, source="market")
    save_truth(truth_folder, world, truth, visits)
    save_config(truth_folder, config, figures(visits, queries, shown, clicked, ordered))
    log.info("market: written after %.1f s", time.perf_counter() - clock)
    return dataset


def save_truth(folder: Path, world: World, truth: Truth, visits: Visits) -> None:
    """Everything that :class:`~onesearch.market.market.Market` needs, except the manifest."""
    folder.mkdir(parents=True)
    save_table(folder, "catalogue", world.catalogue)
    if world.kinds is not None:
        save_table(folder, "kinds", world.kinds)
    save_table(folder, "shoppers", world.shoppers)
    save_table(folder, "needs", world.needs)
    save_table(folder, "queries", truth.queries)
    np.save(folder / "type_leaf.npy", world.vocabulary.type_leaf, allow_pickle=False)
    np.save(folder / "type_sets.npy", truth.type_sets, allow_pickle=False)
    save_table(folder, "visits", visits)
