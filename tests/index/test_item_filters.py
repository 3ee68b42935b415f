import contextlib
import gc
import math
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from damaged_tensors import damaged
from onesearch.common.text_table import TextTable
from onesearch.data.records import ATTRIBUTES, TIME, Item
from onesearch.index import vector_table
from onesearch.index.bits import RankedBits, pack, popcount
from onesearch.index.changed_index import ChangedIndex
from onesearch.index.filter_column_files import load_filter_columns, save_filter_columns
from onesearch.index.filter_columns import FilterColumns, number_in, price_ranges
from onesearch.index.filter_values import FilterError
from onesearch.index.item_filters import ItemFilters, columns_at
from onesearch.index.name_columns import JOINT, Numbering
from onesearch.index.sid_index import SidIndex

SIZES = (3, 4, 2, 3)
PATHS = [("Home", "Kitchen", "Pans"), ("Home", "Kitchen"), ("Home", "Garden"), ("Garden", "Tools"), (), ("Kitchen",)]
BRANDS = ["Acme", "acme", "Bolt", None]
SCHEMA = {
    "category": pl.List(pl.String),
    "brand": pl.String,
    "seller": pl.String,
    "price": pl.Float64,
    "in_stock": pl.Boolean,
    "attributes": ATTRIBUTES,
    "listed_at": TIME,
}
COLORS, SIZES_OF_SHOES = ["red", "Red", "Grün", "blue"], ["40", "41.5 EU", "42,5", "XL"]


def catalogue(seed: int, n: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "category": [list(PATHS[i]) for i in rng.integers(0, len(PATHS), n)],
            "brand": [BRANDS[i] for i in rng.integers(0, len(BRANDS), n)],
            "seller": [f"shop {i}" if i else None for i in rng.integers(0, 4, n)],
            "price": [float(p) if p else None for p in rng.integers(0, 10, n)],
            "in_stock": [bool(i) for i in rng.integers(0, 2, n)],
            "attributes": [
                [{"type": "Color", "value": COLORS[i]} for i in rng.integers(0, 4, rng.integers(0, 3))]
                + [{"type": "Size", "value": SIZES_OF_SHOES[i]} for i in rng.integers(0, 4, rng.integers(0, 3))]
                for _ in range(n)
            ],
            "listed_at": [None] * n,
        },
        schema=SCHEMA,
    )


def index_of(seed: int, rows: np.ndarray) -> SidIndex:
    rng = np.random.default_rng(seed)
    sids = np.stack([rng.integers(0, size, len(rows)) for size in SIZES], 1)
    return SidIndex.build(sids, np.ones((len(rows), 2), np.float32), SIZES, rows=rows)


def matches(item: dict, key: str, value) -> bool:
    """One filter on one item, as a sentence."""
    if key == "all":
        return all(matches(item, *one) for filters in value for one in filters.items())
    if key == "not":
        kinds = [{kind: which} for kind, which in value.get("attributes", {}).items()]
        others = [(one, which) for one, which in value.items() if one != "attributes"]
        return not any(matches(item, *one) for one in (*others, *(("attributes", kind) for kind in kinds)))
    if key == "attributes":
        return all(has_attribute(item, kind, which) for kind, which in value.items())
    if key == "price":
        if value and isinstance(value[0], list):
            return any(matches(item, key, one) for one in value)
        low, high = value
        price = item["price"]
        return price is not None and (low is None or price >= low) and (high is None or price <= high)
    if isinstance(value, list):
        return any(matches(item, key, one) for one in value)
    if key == "category":
        path = tuple(name.lower() for name in item["category"])
        wanted = tuple(name.lower() for name in (value.split(" > ") if isinstance(value, str) else value))
        return (isinstance(value, str) and value.lower() in path) or path[: len(wanted)] == wanted
    if key in ("brand", "seller"):
        return item[key] is not None and item[key].lower() == value.lower()
    return item[key] == value


def record(item_id: str, row: dict) -> Item:
    attributes: dict[str, tuple[str, ...]] = {}
    for one in row["attributes"]:
        attributes[one["type"]] = (*attributes.get(one["type"], ()), one["value"])
    return Item(item_id, "", **{**row, "attributes": attributes})


def has_attribute(item: dict, kind: str, value) -> bool:
    if isinstance(value, list):
        return any(has_attribute(item, kind, one) for one in value)
    values = [one["value"] for one in item["attributes"] if one["type"].lower() == kind.lower()]
    if isinstance(value, str):
        return value.lower().replace("ü", "u") in [one.lower().replace("ü", "u") for one in values]
    numbers = [float(one.split()[0].replace(",", ".")) for one in values if one[0].isdigit()]
    return any(value.get("min", -math.inf) <= one <= value.get("max", math.inf) for one in numbers)


def assert_mask(items: pl.DataFrame, index: SidIndex, filters: ItemFilters, asked: dict) -> None:
    """Every level, position and row against brute force."""
    try:
        mask = filters.mask(asked)
    except FilterError as error:
        unknown = str(error).split("'")[1].lower()
        assert unknown not in {one["type"].lower() for row in items["attributes"].to_list() for one in row}
        return
    allowed = np.array(
        [all(matches(item, key, value) for key, value in asked.items()) for item in items.iter_rows(named=True)], bool
    )
    plain = index.merged() if isinstance(index, ChangedIndex) else index
    rows = plain.item_rows(torch.arange(len(plain)))
    positions = index.position_of(rows)
    below = allowed[rows.numpy()]
    assert mask.count == below.sum()
    assert mask.items_allowed(positions).tolist() == below.tolist()
    assert mask.rows_allowed(rows).tolist() == below.tolist()
    assert mask.items_allowed(torch.tensor([-1])).tolist() == [False]
    for level in range(index.levels):
        every = torch.arange(plain.size(level))
        ranges = zip(*plain.positions(level, every), strict=True)
        counts = [int(below[first:last].sum()) for first, last in ranges]
        nodes = index.locate(plain.sids(level, every))
        assert mask.allowed(level, nodes).tolist() == [count > 0 for count in counts]
        assert mask.counts(level, nodes).tolist() == counts
        if len(nodes):
            assert mask.allowed(level, torch.stack([nodes[:1] * 0 - 1, nodes[:1]], 1)).tolist() == [
                [False, counts[0] > 0]
            ]


one_category = st.sampled_from(
    ["Home", "kitchen", "Pans", "Garden", "home > Kitchen", ("Home", "Kitchen"), ("Kitchen",), "Kitchen > Pans", "x"]
)
one_price = st.sampled_from([[2, 5], [None, 4.5], [6, None], [3, 3], [100, 200]])
one_size = st.sampled_from(["40", "xl", {"min": 41}, {"min": 40, "max": 41.5}, {"max": 42}, {"min": 43}])
conditions = st.fixed_dictionaries(
    {},
    optional={
        "attributes": st.fixed_dictionaries(
            {},
            optional={
                "Color": st.sampled_from(["red", "grun", ["BLUE", "Grün"], "pink"]),
                "size": one_size | st.lists(one_size, min_size=1, max_size=2),
            },
        ),
        "category": one_category | st.lists(one_category, min_size=1, max_size=3),
        "brand": st.sampled_from(["Acme", "acme", "Bolt", "nobody", ["Acme", "Bolt"], ["Bolt", "nobody"]]),
        "seller": st.sampled_from(["shop 1", "shop 9", ["shop 1", "shop 2"]]),
        "price": one_price | st.lists(one_price, min_size=1, max_size=2),
        "in_stock": st.sampled_from([True, False, [True, False]]),
    },
)
questions = st.builds(
    lambda asked, more: {**asked, **more},
    conditions,
    st.fixed_dictionaries({}, optional={"not": conditions, "all": st.lists(conditions, max_size=2)}),
)


def test_an_item_may_meet_each_of_several_conditions_by_another_value():
    items = catalogue(0, 4).with_columns(
        attributes=pl.Series(
            [[("Use", "cooling"), ("Use", "dry")], [("Use", "light")], [("Use", "cooling")], [("Use", "dry")]],
        ).map_elements(lambda row: [{"type": kind, "value": value} for kind, value in row], ATTRIBUTES)
    )
    filters = ItemFilters.build(items, index_of(0, np.arange(4)))
    first, second = {"attributes": {"Use": ["cooling", "light"]}}, {"attributes": {"Use": ["dry", "light"]}}
    mask = filters.mask({**first, "all": [second]})
    assert mask.rows_allowed(torch.arange(4)).tolist() == [True, True, False, False]
    assert filters.mask({"price": [0, 1], "all": [{"price": [2, 3]}]}).count == 0
    for wrong in ({"all": {"brand": "Bolt"}}, {"all": ["Bolt"]}, {"not": {"all": []}}):
        with pytest.raises(FilterError, match="all"):
            filters.mask(wrong)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 3, 63, 64, 65, 128, 200]), questions)
@example(1, 65, {"attributes": {"size": {"min": 40, "max": 41.5}}})
@example(1, 65, {"attributes": {"size": {"min": 41.5}}, "price": [3, 3]})
@example(1, 65, {"category": [("Home", "Kitchen"), "x", "Pans"], "price": [[2, 5], [None, 4.5]]})
@example(1, 65, {"not": {"brand": "acme"}})
def test_masks_equal_brute_force_at_every_level(seed, n, asked):
    items = catalogue(seed, n + 5)
    index = index_of(seed, np.random.default_rng(seed).permutation(n + 5)[:n])  # some items are not in the index
    assert_mask(items, index, ItemFilters.build(items, index), asked)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 20), questions)
@example(1, 20, 5, {})
def test_filters_of_a_changed_catalogue_equal_new_ones(seed, n, more, asked):
    rng, items = np.random.default_rng(seed), catalogue(seed, n)
    first = ChangedIndex.over(index_of(seed, np.arange(n)))
    filters = ItemFilters.build(items, first)
    versions = [(items, first, filters)]
    with contextlib.suppress(FilterError):  # an attribute that no item has yet
        filters.mask(asked)  # fill the cache
    for step in range(3):
        items, index, filters = versions[-1]
        if step == 1 and n > 1:
            index = index.remove([0])
            versions.append((items, index, filters.changed([], [], index)))
            continue
        # Some items are new, and some that were there change; one brand is new to the shop.
        k = int(rng.integers(0, more + 1))
        new = catalogue(seed + step + 1, k + min(n, 3)).with_columns(brand=pl.lit("New"))
        rows = [*range(len(items), len(items) + k), *range(min(n, 3))]
        if step == 2 and n > 1:
            rows, new = rows[:k], new[:k]  # a removed item stays away
        records = [record(str(row), one) for row, one in zip(rows, new.iter_rows(named=True), strict=True)]
        sids = np.stack([rng.integers(0, size, len(rows)) for size in SIZES], 1)
        index = index.upsert(sids, np.ones((len(rows), 2), np.float32), rows)
        table = {row: one for row, one in enumerate(items.iter_rows(named=True))}
        table |= dict(zip(rows, new.iter_rows(named=True), strict=True))
        items = pl.DataFrame([table[row] for row in range(len(table))], schema=SCHEMA)
        versions.append((items, index, filters.changed(rows, records, index)))
    for items, index, filters in versions:  # the old ones still answer for the old index
        for question in (asked, {"brand": "New"}, {"attributes": {"Color": "red"}}, {}):
            assert_mask(items, index, filters, question)
            assert_mask(items, index, ItemFilters.build(items, index), question)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=300), st.data())
def test_ranks_and_ranges_of_bits(members, data):
    bits = RankedBits.from_words(pack(np.array(members, bool)))
    n = len(members)
    assert bits.rank(torch.arange(n + 1)).tolist() == [sum(members[:p]) for p in range(n + 1)]
    if n:
        first = data.draw(st.integers(0, n - 1))
        last = data.draw(st.integers(first + 1, n))
        asked = bits.any_between(torch.tensor([first]), torch.tensor([last]))
        assert asked.tolist() == [any(members[first:last])]


@given(st.integers(-(2**63), 2**63 - 1))
def test_popcount(word):
    assert popcount(torch.tensor([word])).item() == (word % 2**64).bit_count()


def test_old_filters_leave_memory_with_their_last_reader():
    filters = ItemFilters.build(catalogue(0, 5), index_of(0, np.arange(5)))
    filters.mask({"brand": "Bolt"})
    gone = weakref.ref(filters)
    gc.disable()
    try:
        del filters
        assert gone() is None
    finally:
        gc.enable()


def test_masks_are_cached_and_combine():
    items = catalogue(0, 50)
    filters = ItemFilters.build(items, index_of(0, np.arange(50)))
    assert filters.mask({"brand": "Bolt", "in_stock": True}) is filters.mask({"in_stock": True, "brand": "Bolt"})
    both = filters.mask({"brand": "Bolt"}) & filters.mask({"in_stock": True})
    assert both.count == filters.mask({"brand": "Bolt", "in_stock": True}).count > 0
    with pytest.raises(ValueError, match="different indexes"):
        both & ItemFilters.build(items, index_of(1, np.arange(50))).mask({})
    assert filters.mask({}).count == 50
    assert filters.mask({"brand": "nobody"}).count == 0


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"colour": "red"},
            "unknown filter 'colour'. Valid filters are category, brand, seller, price, in_stock, kind, attr",
        ),
        ({"not": {"not": {"brand": "a"}}}, "unknown filter 'not'"),
        ({"not": "Acme"}, "'not' takes a mapping of filters that must not match"),
        ({"not": {"price": [5, 1]}}, "'not.price' has its low bound 5"),
        ({"attributes": ["red"]}, "'attributes' takes a mapping of attribute types"),
        ({"attributes": {"Size": {"low": 3}}}, "'attributes.Size' takes a text, or bounds as"),
        ({"attributes": {"Size": {"min": 3, "max": 2}}}, "'attributes.Size' has its low bound 3"),
        ({"attributes.Colr": "red"}, "no item has an attribute of type 'Colr'; did you mean 'Color'"),
        ({"attributes.Color": []}, "'attributes.Color' is an empty list"),
        ({"prize": [1, 2]}, "did you mean 'price'"),
        ({"brand": None}, "'brand' takes a text"),
        ({"brand": []}, "empty list"),
        ({"category": 3}, "path such as 'A > B'"),
        ({"price": 5}, r"takes \[low, high\]"),
        ({"price": [5, 1]}, "low bound 5 above its high bound 1"),
        ({"price": [None, None]}, "no bound"),
        ({"price": ["1", None]}, "numbers or null"),
        ({"price": [math.nan, 1]}, "numbers or null"),
        ({"in_stock": "yes"}, "true or false"),
    ],
)
def test_errors_say_which_filter_is_wrong(asked, message):
    filters = ItemFilters.build(catalogue(0, 50), index_of(0, np.arange(50)))
    with pytest.raises(FilterError, match=message):
        filters.mask(asked)


def test_filters_move_with_the_index_to_another_base(monkeypatch):
    monkeypatch.setattr(vector_table, "_SPARE_LEAST", 8)
    monkeypatch.setattr(vector_table, "_SPARE_SHARE", 10**9)
    items, index = catalogue(0, 20), ChangedIndex.over(index_of(0, np.arange(20)))
    filters, bases = ItemFilters.build(items, index), {index.base.numbering}
    for step in range(8):
        new = catalogue(step + 1, 1).with_columns(brand=pl.lit("New"))
        one = record(str(step), new.row(0, named=True))
        sids = np.array([[step % 3, step % 4, step % 2, 0]])
        index, items = index.add(sids, np.ones((1, 2), np.float32), [20 + step]), pl.concat([items, new])
        filters = filters.changed([20 + step], [one], index)
        bases.add(index.base.numbering)
        for question in ({"brand": "New"}, {"category": "Home", "in_stock": True}):
            assert_mask(items, index, filters, question)
    assert len(bases) > 2


def test_every_attribute_value_finds_its_items():
    """The first and the last of the numbered values, too."""
    items = catalogue(3, 25)
    index = index_of(3, np.arange(25))
    filters = ItemFilters.build(items, index)
    pairs = {(one["type"], one["value"]) for row in items["attributes"].to_list() for one in row}
    assert len(pairs) > 5
    for kind, value in pairs:
        assert_mask(items, index, filters, {"attributes": {kind: value}})


def test_a_path_is_one_from_the_root():
    paths = pl.Series([["Home", "Kitchen", "Pans"], ["Kitchen", "Pans"], ["Home", "Kitchenware"]])
    items = catalogue(0, 3).with_columns(category=paths)
    filters = ItemFilters.build(items, index_of(0, np.arange(3)))
    for asked, rows in (("Kitchen > Pans", [False, True, False]), ("Home > Kitchen", [True, False, False])):
        assert filters.mask({"category": asked}).rows_allowed(torch.arange(3)).tolist() == rows


def test_names_are_found_in_any_case_and_without_accents():
    items = catalogue(0, 3).with_columns(
        brand=pl.Series(["Nestlé", "NESTLE", "Nest"]), category=pl.Series([["Café", "Crème"], ["cafe"], ["Thé"]])
    )
    filters = ItemFilters.build(items, index := index_of(0, np.arange(3)))
    for asked in ({"brand": "nestle"}, {"brand": ["NESTLÉ"]}, {"category": "CAFE"}):
        assert filters.mask(asked).rows_allowed(torch.arange(3)).tolist() == [True, True, False], asked
    assert filters.mask({"category": "café > creme"}).rows_allowed(torch.arange(3)).tolist() == [True, False, False]
    typed = [[{"type": "Größe", "value": "Éxtra"}], [{"type": "Größe", "value": "extra"}], []]
    filters = ItemFilters.build(items.with_columns(attributes=pl.Series(typed, dtype=ATTRIBUTES)), index)
    for kind, value in (("Größe", "extra"), ("GRÖSSE", "EXTRA"), ("größe", "Extra")):
        asked = {"attributes": {kind: value}}
        assert filters.mask(asked).rows_allowed(torch.arange(3)).tolist() == [True, True, False], asked
    new = Item("3", "", brand="nestLÉ", category=("café",))
    grown = ChangedIndex.over(index).add(np.zeros((1, 4), int), np.ones((1, 2), np.float32), [3])
    later = filters.changed([3], [new], grown)
    assert later.mask({"brand": "Nestlé"}).rows_allowed(torch.arange(4)).tolist() == [True, True, False, True]


def test_item_table_must_fit():
    items = catalogue(0, 5)
    with pytest.raises(ValueError, match="no column seller"):
        ItemFilters.build(items.drop("seller"), index_of(0, np.arange(5)))
    with pytest.raises(ValueError, match="item row 9, but the item table has 5 rows"):
        ItemFilters.build(items, index_of(0, np.array([1, 9])))


@pytest.mark.parametrize(
    "members", [[0], [63], [64], [127, 128], [1, 62, 65, 129], [], list(range(64)), list(range(131))]
)
def test_ranges_that_begin_and_end_at_the_borders_of_words(members):
    """Every range of 131 positions around the borders at 64 and 128, against plain sets."""
    bits = RankedBits.from_words(pack(np.isin(np.arange(131), members)))
    ends = [0, 1, 2, 31, 62, 63, 64, 65, 66, 100, 126, 127, 128, 129, 130, 131]
    ranges = [(first, last) for first in ends for last in ends if first < last]
    first, last = torch.tensor(ranges).T
    held = [sum(low <= p < high for p in members) for low, high in ranges]
    assert bits.any_between(first, last).tolist() == [count > 0 for count in held]
    assert (bits.rank(last) - bits.rank(first)).tolist() == held
    assert bits.contains(torch.arange(131)).tolist() == [p in members for p in range(131)]
    assert bits.count == len(members)


def test_items_of_unknown_stock_are_not_in_stock():
    items = catalogue(0, 3).with_columns(in_stock=pl.Series([True, None, False]))
    filters = ItemFilters.build(items, index_of(0, np.arange(3)))
    assert [filters.mask({"in_stock": asked}).count for asked in (True, False)] == [1, 2]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        ("42 cm", 42),
        ("5,5", 5.5),
        ("-3.25x", -3.25),
        ("1,000", math.nan),
        ("red 5", math.nan),
        ("", math.nan),
    ],
)
def test_the_number_that_a_value_begins_with(text, number):
    assert number_in(text) == pytest.approx(number, nan_ok=True)


def test_a_dot_is_short_for_a_mapping_and_words_for_what_they_mean():
    items = catalogue(0, 60)
    filters = ItemFilters.build(items, index_of(0, np.arange(60)))
    for short, long in (
        ({"attributes.Color": "red"}, {"attributes": {"Color": "red"}}),
        ({"not.brand": "Acme"}, {"not": {"brand": "Acme"}}),
        ({"not.attributes.Size": 40}, {"not": {"attributes": {"Size": "40"}}}),
    ):
        assert filters.mask(short) is filters.mask(long) and 0 < filters.mask(short).count < 60


def test_listing_times_are_read_of_tables_and_of_records():
    time = datetime(2026, 1, 2, tzinfo=UTC)
    items = catalogue(0, 2).with_columns(listed_at=pl.Series([time, None], dtype=TIME))
    columns = FilterColumns.from_items(items)
    more = columns.of(
        [Item("x", "", listed_at=time), Item("y", "", listed_at=time.replace(tzinfo=None)), Item("z", "")]
    )
    np.testing.assert_array_equal(
        columns.followed_by(more).listed, [time.timestamp(), math.nan, *[time.timestamp()] * 2, math.nan]
    )


def test_values_are_counted_by_item():
    items = catalogue(0, 4).with_columns(
        price=pl.Series([1.0, 2.0, 12.4, None]),
        attributes=pl.Series(
            [
                [{"type": "Color", "value": "Red"}, {"type": "Color", "value": "red"}, {"type": "Size", "value": "40"}],
                [{"type": "Color", "value": "Red"}],
                [{"type": "Color", "value": "blue"}],
                [],
            ],
            dtype=ATTRIBUTES,
        ),
    )
    columns = FilterColumns.from_items(items)
    assert columns.counts("attributes", "color") == [("Red", 2), ("blue", 1)]
    assert columns.counts("attributes", "Weight") == []
    assert list(price_ranges(np.array([1.0, 2.0, 12.4, 13.0, math.nan]), 2)) == [((1.0, 7.2), 2), ((12.4, 13.0), 2)]
    assert sum(n for _, n in columns.counts("price")) == 3


def test_values_are_searched_before_they_are_cut_and_each_level_has_its_own():
    n = 240
    items = catalogue(0, n).with_columns(
        category=pl.Series([["A", f"B{i // 2}", f"Ç {i}"] for i in range(n)]),
        brand=pl.Series([f"Brand {i // 2}" for i in range(n)]),
        attributes=pl.Series([[{"type": "Entity", "value": f"Wók {i}"}] for i in range(n)], dtype=ATTRIBUTES),
    )
    columns = FilterColumns.from_items(items)
    levels = [name.count(" > ") for name, _ in columns.counts("category")]
    assert [levels.count(level) for level in range(3)] == [1, 100, 100]
    few = [name for name, _ in columns.counts("category", most=2)]
    assert few == ["A", "A > B0", "A > B1", "A > B0 > Ç 0", "A > B0 > Ç 1"]
    assert columns.counts("category", text="c 239") == [("A > B119 > Ç 239", 1)]
    assert columns.counts("brand", text="BRAND 119") == [("Brand 119", 2)] and len(columns.counts("brand")) == 100
    assert columns.counts("attributes", "entity", text="wok 239") == [("Wók 239", 1)]
    assert len(columns.counts("attributes", "entity", text="wok")) == 100


class TwoHalves:
    """Where two halves meet that are counted one after the other: each finds what the other brought last time."""

    def __init__(self) -> None:
        self.brought: list[dict[int, np.ndarray]] = [{}, {}]

    def of(self, half: int) -> Callable[[np.ndarray], list[np.ndarray]]:
        times = count()

        def meet(own: np.ndarray) -> list[np.ndarray]:
            at = next(times)
            self.brought[half][at] = own
            return [one.get(at, own[:0]) for one in self.brought]

        return meet


def test_counts_of_two_halves_are_those_of_all():
    """Each half brings its own numbers and prices, and gets those of both, at every point where they meet."""
    n = 90
    items = catalogue(0, n).with_columns(
        category=pl.Series([["A", f"B{i % 7}"] for i in range(n)]),
        brand=pl.Series([("Acme", "ACME", "acme", None)[i % 4] for i in range(n)]),
        price=pl.Series([None if i % 9 == 0 else float(i * 7 % 31) for i in range(n)]),
        attributes=pl.Series([[{"type": "Color", "value": ("Red", "red", "blue")[i % 3]}] for i in range(n)]),
    )
    columns = FilterColumns.from_items(items)
    halves = [columns.take(np.arange(30)), columns.take(np.arange(30, n))]
    for key, kind in (("brand", ""), ("category", ""), ("price", ""), ("in_stock", ""), ("attributes", "color")):
        meeting = TwoHalves()
        for _ in range(3):  # what a half brings second depends on what both brought first
            found = [one.counts(key, kind, of_all=meeting.of(half)) for half, one in enumerate(halves)]
        assert found == [columns.counts(key, kind)] * 2, key


def test_all_but_some_rows():
    """Of the base, of what was changed, and of what came later; one that is not there takes no other with it."""
    items = catalogue(3, 40)
    base = index_of(3, np.arange(30))
    filters, rows = ItemFilters.build(items[:30], base), [*range(30, 40), 5]
    records = [record(str(row), items.row(row, named=True)) for row in rows]
    sids = np.random.default_rng(0).integers(0, 2, (len(rows), len(SIZES)))
    index = ChangedIndex.over(base).upsert(sids, np.ones((len(rows), 2), np.float32), rows)
    gone = np.array([1, 5, 33, 39])
    for n, mask in ((30, filters.all_but(gone)), (40, filters.changed(rows, records, index).all_but(gone))):
        left = sorted(set(range(n)) - set(gone.tolist()))
        assert torch.nonzero(mask.rows_allowed(torch.arange(n))).flatten().tolist() == left and mask.count == len(left)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 99), questions)
def test_saved_columns_filter_as_those_of_the_catalogue(tmp_path_factory, n, seed, asked):
    items, folder = catalogue(seed, n), tmp_path_factory.mktemp("columns")
    index = index_of(seed, np.arange(n))
    order = index.item_rows(torch.arange(n)).numpy()
    save_filter_columns(columns_at(FilterColumns.from_items(items), order), folder)
    filters = ItemFilters.over(load_filter_columns(folder, n), index)
    assert_mask(items, index, filters, asked)
    plain = ItemFilters.build(items, index).columns()
    for key in ("category", "brand", "seller", "price", "in_stock"):
        assert filters.columns().counts(key) == plain.counts(key)


def test_damaged_columns_are_refused_with_a_sentence(tmp_path):
    save_filter_columns(FilterColumns.from_items(catalogue(0, 30)), tmp_path)
    path, ways = tmp_path / "filter_columns.safetensors", 0
    for way in damaged(path):
        ways += 1
        with pytest.raises(ValueError, match=r"filter_columns\.safetensors.*make the run's stage index again"):
            load_filter_columns(tmp_path, 30)
            pytest.fail(way)
    assert ways > 18 * 3
    with pytest.raises(ValueError, match="29 items"):
        load_filter_columns(tmp_path, 29)
    load_filter_columns(tmp_path, 30)


def test_names_that_stand_twice_are_refused(tmp_path):
    columns = FilterColumns.from_items(catalogue(0, 30))
    save_filter_columns(columns, tmp_path)
    path = tmp_path / "filter_columns.safetensors"
    arrays = {name: one.clone() for name, one in load_file(path).items()}
    names = ["acme" for _ in range(len(arrays["brand.names.offsets"]) - 1)]
    table = TextTable.from_texts(names)
    twice = {"brand.names.letters": table.letters.copy(), "brand.names.offsets": table.offsets}
    save_file(arrays | {name: torch.from_numpy(one) for name, one in twice.items()}, path)
    with pytest.raises(ValueError, match="hold a text twice"):
        load_filter_columns(tmp_path, 30)


def test_a_reader_finds_no_number_that_is_not_counted_yet():
    numbering, fits = Numbering(), []

    class Looking(dict):
        def __setitem__(self, part, value):
            super().__setitem__(part, value)
            fits.append(max(numbering.with_part(part)) < len(numbering))

    numbering._with = Looking()
    for name in ("Acme", "ACME", f"Home{JOINT}Acme", "Home"):
        numbering.of(name)
    assert len(fits) == 4 and all(fits)
    assert numbering.starting_with("acme") == [0, 1] and numbering.starting_with("home") == [2, 3]
