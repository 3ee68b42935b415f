"""Histories in a file: those of a plain count over the log, and nothing else that the file may hold."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damaged_tensors import damaged
from onesearch.data.dataset import Dataset
from onesearch.data.records import PAGE_VIEWS, Item, items_frame
from onesearch.search.logged_histories import FILE, LoggedHistories
from onesearch.search.shopper_history import NO_HISTORY, ShopperHistory

USERS = pl.DataFrame(
    {"user_id": ["ann", "bob", "eve"], "gender": ["F", None, "M"], "age_band": ["24-30", "31-40", None]}
)
ids = st.lists(st.sampled_from(["a", "b", "c", "gone"]), max_size=3)
visits = st.tuples(
    st.sampled_from(["ann", "bob", "Zoë", "carl", None]),
    st.integers(0, 5),
    st.sampled_from(["lamp", " ", "", None, "红"]),
)
page_views = st.lists(st.tuples(visits, ids, ids), max_size=14)


def dataset(folder, rows) -> Dataset:
    columns = {
        "user_id": [one[0][0] for one in rows],
        "time": pl.Series([one[0][1] for one in rows], dtype=pl.Int64).cast(PAGE_VIEWS["time"]),
        "query": [one[0][2] for one in rows],
        "clicked": [one[1] for one in rows],
        "ordered": [one[2] for one in rows],
    }
    log = pl.DataFrame(columns, schema_overrides={name: PAGE_VIEWS[name] for name in columns})
    return Dataset.write(folder, items_frame([Item(name, name) for name in "abc"]), USERS, log)


def plain(rows, user: str, clicks: int, orders: int, queries: int) -> ShopperHistory:
    """One loop over the page views of a user, oldest first."""
    clicked, of_clicks, ordered, recent = [], [], [], []
    for (_, _, query), some, bought in sorted((row for row in rows if row[0][0] == user), key=lambda row: row[0][1]):
        clicked += some
        of_clicks += [query or ""] * len(some)
        ordered += bought
        recent += [query] if (query or "").strip() else []
    known = {"ann": "F 24-30", "bob": "31-40"}
    lists = (clicked[-clicks:], of_clicks[-clicks:], ordered[-orders:], recent[-queries:])
    return ShopperHistory(*map(tuple, lists), known.get(user, ""))


@settings(max_examples=60, deadline=None)
@given(page_views)
def test_histories_are_those_of_a_loop_over_the_log(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("log")
    LoggedHistories.from_dataset(dataset(folder, rows), 4, 3, 2).save(folder)
    found = LoggedHistories.load(folder)
    users = {row[0][0] for row in rows} - {None}
    assert len(found) == len(users) and all(found.history(user) == plain(rows, user, 4, 3, 2) for user in users)
    assert found.history("nobody") == found.history("eve") == NO_HISTORY  # eve never came by
    clicks = {user: len(plain(rows, user, 4, 3, 2).clicked) for user in users}
    active = found.most_active(3)
    assert [clicks[user] for user in active] == sorted(clicks.values(), reverse=True)[:3]


def test_a_damaged_file_is_refused_with_a_sentence(tmp_path):
    rows = [
        (("ann", 1, "lamp"), ["a", "b"], ["a"]),
        (("bob", 2, "sofa"), ["c"], []),
        (("ann", 3, "tent"), ["gone"], ["b"]),
    ]
    LoggedHistories.from_dataset(dataset(tmp_path, rows)).save(tmp_path)
    ways = 0
    for way in damaged(tmp_path / FILE):
        ways += 1
        with pytest.raises(ValueError, match=r"log_histories\.safetensors.*make the run's stage data again"):
            pytest.fail(f"{way}: {LoggedHistories.load(tmp_path)}")
    assert ways > 17 * 3
    assert LoggedHistories.load(tmp_path).history("ann").ordered == ("a", "b")


def test_other_queries_of_clicks_than_clicks_are_refused(tmp_path):
    rows = [(("ann", 1, "lamp"), ["a", "b"], []), (("bob", 2, "sofa"), ["c"], [])]
    whole = LoggedHistories.from_dataset(dataset(tmp_path, rows))
    LoggedHistories(**{**vars(whole), "clicked_queries": whole.clicked_queries.select([1, 0])}).save(tmp_path)
    with pytest.raises(ValueError, match="not as many queries of clicks as clicks"):
        LoggedHistories.load(tmp_path)
