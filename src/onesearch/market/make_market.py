"""Make a market: world, traffic, logged pages and reactions, written as a dataset with its truth beside it."""

import logging
import shutil
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.artefact import MANIFEST, write_json
from onesearch.common.progress import track
from onesearch.common.ragged import Ragged
from onesearch.data.dataset import Dataset
from onesearch.data.records import TIME
from onesearch.market.click_truth import Truth, Visits
from onesearch.market.logging_engine import LoggingEngine
from onesearch.market.market_queries import Queries
from onesearch.market.market_settings import MarketSettings
from onesearch.market.market_shoppers import AGE_BANDS, GENDERS
from onesearch.market.market_traffic import QUERY_TYPES, Traffic
from onesearch.market.market_vocabulary import SLOTS
from onesearch.market.world import World
from onesearch.market.world_files import FOLDER, save_config, save_table

log = logging.getLogger("onesearch")
CHUNK: Final = 25_000
_JUDGED_QUERIES: Final = 2_000
_JUDGED_PER_QUERY: Final = 12


def item_ids(rows: NDArray[np.integer]) -> pl.Series:
    """Item ids of rows: ``i0``, ``i1``, ..."""
    return pl.select(pl.lit("i") + pl.Series(rows).cast(pl.String)).to_series()


def id_lists(ragged: Ragged) -> pl.Series:
    """A ragged array of item rows as a List(String) column of item ids."""
    owners = pl.DataFrame({"owner": ragged.owners, "id": item_ids(ragged.values)})
    grouped = owners.group_by("owner", maintain_order=True).agg("id")
    every = pl.DataFrame({"owner": np.arange(len(ragged))})
    return every.join(grouped, on="owner", how="left", maintain_order="left")["id"].fill_null(
        pl.lit([], pl.List(pl.String))
    )


def _ragged(page: NDArray[np.int32], mask: NDArray[np.bool_]) -> Ragged:
    return Ragged.from_lengths(page[mask], mask.sum(1))


def items_table(world: World) -> pl.DataFrame:
    """The catalogue as the shop sees it."""
    titles, attributes = world.listings()
    catalogue, vocabulary = world.catalogue, world.vocabulary
    paths = pl.Series([list(name) for name in vocabulary.leaf_names], dtype=pl.List(pl.String))
    names = np.array(catalogue.value_names, object)
    return pl.DataFrame(
        {
            "item_id": item_ids(np.arange(len(catalogue))),
            "title": titles,
            "category": paths.gather(catalogue.leaves.astype(np.int64)),
            "brand": pl.Series(
                names[catalogue.values[:, SLOTS.index("Brand")]].tolist(), dtype=pl.String
            ).str.to_titlecase(),
            "price": catalogue.price,
            "attributes": attributes,
            "seller": pl.select(pl.lit("seller ") + pl.Series(catalogue.sellers).cast(pl.String)).to_series(),
            "listed_at": pl.Series(catalogue.listed).cast(TIME),
            "in_stock": pl.Series(np.ones(len(catalogue), np.bool_)),
        }
    )


def users_table(world: World) -> pl.DataFrame:
    """The shoppers as the shop knows them."""
    shoppers = world.shoppers
    gender = np.array([*GENDERS, None], object)[np.where(shoppers.gender_known, shoppers.gender, -1)]
    age = np.array([*AGE_BANDS, None], object)[np.where(shoppers.age_known, shoppers.age, -1)]
    return pl.DataFrame(
        {
            "user_id": pl.select(pl.lit("u") + pl.Series(np.arange(len(shoppers))).cast(pl.String)).to_series(),
            "gender": pl.Series(gender.tolist(), dtype=pl.String),
            "age_band": pl.Series(age.tolist(), dtype=pl.String),
        }
    )


def page_views_table(
    traffic: Traffic, visits: Visits, queries: Queries, shown: Ragged, clicked: Ragged, ordered: Ragged
) -> pl.DataFrame:
    """The log."""
    texts = pl.Series(queries.texts)
    kinds = pl.Series(QUERY_TYPES)
    kind_of = pl.Series(queries.kind[visits.query].astype(np.int64))
    return pl.DataFrame(
        {
            "page_view_id": pl.select(pl.lit("p") + pl.Series(np.arange(len(visits))).cast(pl.String)).to_series(),
            "user_id": pl.select(pl.lit("u") + pl.Series(visits.user).cast(pl.String)).to_series(),
            "session_id": pl.select(pl.lit("s") + pl.Series(traffic.session).cast(pl.String)).to_series(),
            "time": pl.Series(visits.time).cast(TIME),
            "query": texts.gather(visits.query.astype(np.int64)),
            "shown": id_lists(shown),
            "clicked": id_lists(clicked),
            "ordered": id_lists(ordered),
            "query_type": kinds.gather(kind_of),
        }
    )


def _judgments(truth: Truth, visits: Visits, shown: NDArray[np.int32], seed: int) -> pl.DataFrame:
    """True levels of items shown for a sample of queries of the first 80 % of the log, as raters would give."""
    rng = np.random.default_rng([seed, 10])
    early = visits.query[: int(0.8 * len(visits))]
    picked = rng.permutation(np.unique(early, return_index=True)[1])[:_JUDGED_QUERIES]
    items = shown[np.sort(picked), :_JUDGED_PER_QUERY]
    query = np.repeat(visits.query[np.sort(picked)], items.shape[1])
    items = items.reshape(-1)
    query, items = query[items >= 0], items[items >= 0]
    return pl.DataFrame(
        {
            "query": pl.Series(truth.queries.texts).gather(query.astype(np.int64)),
            "item_id": item_ids(items),
            "level": truth.levels(query, items),
        }
    )


def simulate(
    world: World, truth: Truth, titles: list[str], visits: Visits
) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """Logged pages int32 [n, page_size] and what happened there, int8: 0 shown, 1 examined, 2 clicked, 3 ordered."""
    engine = LoggingEngine(titles, truth, world.config.engine, world.config.seed)
    candidates = engine.candidates()
    shown = np.empty((len(visits), world.config.engine.page_size), np.int32)
    state = np.empty(shown.shape, np.int8)
    rng = np.random.default_rng([world.config.seed, 11])
    for start in track(range(0, len(visits), CHUNK), "page views", unit="chunk"):
        part = visits.select(slice(start, start + CHUNK))
        page = engine.pages(candidates, part, rng)
        reactions, _ = truth.react(part, page)
        shown[start : start + len(part)] = page
        state[start : start + len(part)] = (
            reactions.examined.astype(np.int8) + reactions.clicked.astype(np.int8) + reactions.ordered.astype(np.int8)
        )
    return shown, state


def figures(visits: Visits, queries: Queries, shown: NDArray[np.int32], state: NDArray[np.int8]) -> dict[str, Any]:
    """Figures of a log that are compared with published ones (``docs/concepts.md``)."""
    clicks, orders = (state >= 2).sum(1), (state >= 3).sum(1)
    plain = queries.kind[visits.query] == 0
    words = np.array([text.count(" ") + 1 for text in queries.texts])[visits.query]
    per_item = np.sort(np.bincount(shown[state >= 2], minlength=1))[::-1]
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
        "ctr_by_rank": [float(value) for value in (state >= 2).sum(0) / np.maximum((shown >= 0).sum(0), 1)],
        "clicks_on_top_tenth_of_items": float(per_item[: max(1, len(per_item) // 10)].sum() / max(per_item.sum(), 1)),
    }


def make_market(config: MarketSettings, folder: Path) -> Dataset:
    """Make the market of a config and write it as a dataset; the truth goes to its subfolder ``market``."""
    clock = time.perf_counter()
    truth_folder = folder / FOLDER
    if truth_folder.is_dir():
        (truth_folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(truth_folder)
    world = World.build(config)
    items = items_table(world)
    traffic, queries, visits = world.traffic(config.n_page_views)
    truth = world.truth(queries)
    log.info("market: world and %s queries after %.1f s", f"{len(queries):,}", time.perf_counter() - clock)
    shown, state = simulate(world, truth, items["title"].to_list(), visits)
    page_views = page_views_table(
        traffic, visits, queries, _ragged(shown, shown >= 0), _ragged(shown, state >= 2), _ragged(shown, state >= 3)
    )
    log.info("market: log after %.1f s", time.perf_counter() - clock)
    judgments = _judgments(truth, visits, shown, config.seed)
    dataset = Dataset.write(folder, items, users_table(world), page_views, judgments, source="market")
    save_truth(truth_folder, world, truth, visits)
    save_config(truth_folder, config, figures(visits, queries, shown, state))
    log.info("market: written after %.1f s", time.perf_counter() - clock)
    return dataset


def save_truth(folder: Path, world: World, truth: Truth, visits: Visits) -> None:
    """Everything that :class:`~onesearch.market.market.Market` needs, except the manifest."""
    folder.mkdir(parents=True)
    save_table(folder, "catalogue", world.catalogue)
    save_table(folder, "shoppers", world.shoppers)
    save_table(folder, "needs", world.needs)
    save_table(folder, "queries", truth.queries)
    write_json(folder / "types.json", {"nouns": world.vocabulary.type_nouns, "leaves": world.vocabulary.leaf_names})
    np.save(folder / "type_leaf.npy", world.vocabulary.type_leaf, allow_pickle=False)
    np.save(folder / "type_sets.npy", truth.type_sets, allow_pickle=False)
    for name in ("user", "query", "focus", "time"):
        np.save(folder / f"visits.{name}.npy", getattr(visits, name), allow_pickle=False)
