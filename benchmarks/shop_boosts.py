"""A shop's rule boosts emerging sellers: what pages show of them, and what becomes of all orders.

Prints one JSON object (``python -m benchmarks.shop_boosts runs/demo``). The same engine serves the same page views of
the market's shoppers, known ones and newcomers, under one rule that multiplies the odds of the sellers' items by 1, 2
and 4; shoppers have the same fate in all arms. Lifts are paired, with bootstrap intervals over shoppers.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.market_pages import served
from onesearch.data.dataset import Dataset
from onesearch.evaluation.abtest_estimates import MetricLift, ShopperSums, keep_items, paired_lifts
from onesearch.evaluation.market_laboratory import Laboratory
from onesearch.market.market import Market
from onesearch.search.engine import SearchEngine, load_engine
from onesearch.search.rules import BoostRule, Rules

TIMES, PAGE_VIEWS, NEWCOMERS = (1, 2, 4), 3_000, 400


def measure(engine: SearchEngine, data: Path, page_views: int, newcomers: int, times: Iterable[int]) -> dict[str, Any]:
    """Serve under each boost, the first of which the others are compared with."""
    items = Dataset.load(data).items
    emerging = items.filter(Market.load(data).emerging_items)
    sellers, ids = emerging["seller"].unique().sort().to_list(), emerging["item_id"].to_list()
    prices = dict(zip(items["item_id"].to_list(), items["price"].fill_null(0.0).to_list(), strict=True))
    laboratory = Laboratory(data, page_views, newcomers)
    # Sums by shopper of all items and of the sellers' own, under each boost.
    shop: dict[int, ShopperSums] = {}
    group: dict[int, ShopperSums] = {}
    for one in times:
        engine.follow_rules(Rules(boosts=(BoostRule(name="emerging", column="seller", values=sellers, times=one),)))
        log = laboratory.exposures(served(engine, laboratory.page_views))
        shop[one] = ShopperSums.from_page_views(log, prices)
        group[one] = ShopperSums.from_page_views(keep_items(log, ids), prices)
    first, *others = shop
    found: dict[str, Any] = {
        "page views": page_views,
        "shoppers": len(shop[first]),
        "emerging sellers": len(sellers),
        "their share of the catalogue": round(len(ids) / len(items), 4),
    }
    before = first
    for one in shop:
        places = group[one].column("impressions").sum() / shop[one].column("impressions").sum()
        found[f"times {one}"] = part = {"their share of first pages": round(float(places), 4)}
        if one in others:
            over = {f"over times {base}": base for base in dict.fromkeys((before, first))}
            for name, base in over.items():
                part |= _lifts(f"their places {name}", paired_lifts(group[base], group[one], metrics=["exposure"]))
            part |= _lifts("their", paired_lifts(group[first], group[one], metrics=["orders"]))
            part |= _lifts("all", paired_lifts(shop[first], shop[one], metrics=["orders", "conversion", "GMV"]))
        before = one
    return found


def _lifts(whose: str, lifts: Mapping[str, MetricLift]) -> dict[str, Any]:
    """Lift, interval and p-value of each metric."""
    return {
        whose if name == "exposure" else f"{whose} {name}": {
            "lift": round(one.lift, 4),
            "95 % interval": [round(one.low, 4), round(one.high, 4)],
            "p": float(f"{one.p:.2g}"),
        }
        for name, one in lifts.items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    run = Path(sys.argv[1])
    print(json.dumps(measure(load_engine(run), run / "data", PAGE_VIEWS, NEWCOMERS, TIMES)))
