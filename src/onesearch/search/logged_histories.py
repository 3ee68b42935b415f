"""What every shopper of the log did up to its end, in one file that is read where it is asked for.

A file of arrays instead of Python's objects: a server holds the histories of the shoppers that come by, and several on
one machine share them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.array_checks import are_numbers, are_offsets
from onesearch.common.ragged import Ragged
from onesearch.common.text_table import TextTable
from onesearch.data.dataset import Dataset
from onesearch.index.tensor_files import read_arrays, write_arrays
from onesearch.search.shopper_history import MAX_CLICKS, MAX_ORDERS, MAX_QUERIES, NO_HISTORY, ShopperHistory

FILE: Final = "log_histories.safetensors"
_TEXTS: Final = ("users", "profiles", "item_ids", "query_texts")
_LISTS: Final = ("clicked", "clicked_queries", "ordered", "recent")


@dataclass(frozen=True)
class LoggedHistories:
    """Where an engine looks up the histories of a log.

    Attributes:
        users: ids, sorted; profiles: the distinct profile texts.
        item_ids, query_texts: ids of items and texts of queries that occur, each once.
        profile: int32 [U], the number of each user's profile.
        clicked, clicked_queries: of each user the numbers of items and, of as many, of queries, newest last.
        ordered, recent: of each user numbers of items and of queries, newest last.
    """

    users: TextTable
    profiles: TextTable
    item_ids: TextTable
    query_texts: TextTable
    profile: NDArray[np.int32]
    clicked: Ragged
    clicked_queries: Ragged
    ordered: Ragged
    recent: Ragged

    @classmethod
    def from_dataset(
        cls, dataset: Dataset, clicks: int = MAX_CLICKS, orders: int = MAX_ORDERS, queries: int = MAX_QUERIES
    ) -> "LoggedHistories":
        """The newest clicks, orders and queries of every user of a log."""
        log = dataset.page_views.filter(pl.col("user_id").is_not_null()).sort("time", maintain_order=True)
        users = log.select(pl.col("user_id").unique().sort())
        # One row for each user, list and event; then the last few of each user.
        text = pl.col("query").fill_null("")
        clicked = log.select("user_id", query=text, item="clicked").explode("item").drop_nulls("item")
        ordered = log.select("user_id", item="ordered").explode("item").drop_nulls("item")
        searched = log.select("user_id", query=text).filter(pl.col("query").str.strip_chars() != "")
        newest = ((clicked, clicks), (ordered, orders), (searched, queries))
        clicked, ordered, searched = (part.group_by("user_id", maintain_order=True).tail(n) for part, n in newest)
        items = pl.concat([clicked["item"], ordered["item"]]).unique().sort()
        texts = pl.concat([clicked["query"], searched["query"]]).unique().sort()
        # Profiles of the users that the user table has.
        words = pl.concat_str([pl.col("gender").fill_null(""), pl.col("age_band").fill_null("")], separator=" ")
        known = dataset.users.select("user_id", profile=words.str.strip_chars())
        profile = users.join(known, on="user_id", how="left", maintain_order="left")["profile"].fill_null("")
        profiles = profile.unique().sort()
        return cls(
            TextTable.from_texts(users["user_id"]),
            TextTable.from_texts(profiles),
            TextTable.from_texts(items),
            TextTable.from_texts(texts),
            _numbers(profile, profiles),
            _lists(users, clicked, "item", items),
            _lists(users, clicked, "query", texts),
            _lists(users, ordered, "item", items),
            _lists(users, searched, "query", texts),
        )

    def history(self, user: str) -> ShopperHistory:
        """The shopper's past; an unknown shopper has none."""
        row = self.users.find(user)
        return NO_HISTORY if row is None else self._of(row)

    def most_active(self, limit: int) -> list[str]:
        """Some users, those with the most clicks first."""
        return [self.users[row] for row in np.argsort(-self.clicked.lengths, kind="stable")[:limit].tolist()]

    def __len__(self) -> int:
        return len(self.users)

    def _of(self, row: int) -> ShopperHistory:
        clicked, of_clicks, ordered, recent = (getattr(self, name)[row].tolist() for name in _LISTS)
        return ShopperHistory(
            tuple(map(self.item_ids.__getitem__, clicked)),
            tuple(map(self.query_texts.__getitem__, of_clicks)),
            tuple(map(self.item_ids.__getitem__, ordered)),
            tuple(map(self.query_texts.__getitem__, recent)),
            self.profiles[int(self.profile[row])],
        )

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write one file into a folder."""
        arrays: dict[str, NDArray[Any]] = {"profile": self.profile}
        for name in _TEXTS:
            texts = getattr(self, name)
            arrays |= {f"{name}.letters": texts.letters, f"{name}.offsets": texts.offsets}
        for name in _LISTS:
            lists = getattr(self, name)
            arrays |= {f"{name}.values": lists.values, f"{name}.offsets": lists.offsets}
        write_arrays(folder / FILE, arrays)

    @classmethod
    def load(cls, folder: Path) -> "LoggedHistories":
        """What :meth:`save` wrote, mapped into memory.

        Raises:
            ValueError: the arrays do not fit together.
        """
        path = folder / FILE
        found = read_arrays(path)
        try:
            parts: dict[str, Any] = {"profile": found["profile"]}
            parts |= {name: TextTable(found[f"{name}.letters"], found[f"{name}.offsets"]) for name in _TEXTS}
            parts |= {name: Ragged(found[f"{name}.values"], found[f"{name}.offsets"]) for name in _LISTS}
            histories = cls(**parts)
        except KeyError as error:
            raise ValueError(f"{path} has no {error}; make the run's stage data again") from None
        if problem := histories._problem():
            raise ValueError(f"{path}: {problem}; make the run's stage data again")
        return histories

    def _problem(self) -> str:
        """What does not fit together; "" where all does."""
        for name in _TEXTS:
            one = getattr(self, name)
            if one.letters.dtype != np.uint8 or not are_offsets(one.offsets, one.letters):
                return f"{name} are no texts"
        users, numbers = len(self.users), {"clicked": self.item_ids, "ordered": self.item_ids}
        for name in _LISTS:
            one, of = getattr(self, name), numbers.get(name, self.query_texts)
            if (
                not are_offsets(one.offsets, one.values)
                or len(one) != users
                or not are_numbers(one.values, np.int32, len(of))
            ):
                return f"{name} are no lists of {users} users with numbers below {len(of)}"
        if len(self.profile) != users or not are_numbers(self.profile, np.int32, len(self.profiles)):
            return f"profile has no numbers below {len(self.profiles)} of {users} users"
        if not np.array_equal(self.clicked.offsets, self.clicked_queries.offsets):
            return "there are not as many queries of clicks as clicks"
        return ""


def _numbers(values: pl.Series, known: pl.Series) -> NDArray[np.int32]:
    """The number of each value among the known ones, which are sorted and have them all."""
    return known.search_sorted(values).to_numpy().astype(np.int32) if len(values) else np.zeros(0, np.int32)


def _lists(users: pl.DataFrame, events: pl.DataFrame, column: str, known: pl.Series) -> Ragged:
    """A column of events, in order, as lists of numbers of the users."""
    row = _numbers(events["user_id"], users["user_id"])
    order = np.argsort(row, kind="stable")
    return Ragged.from_lengths(_numbers(events[column], known)[order], np.bincount(row, minlength=len(users)))
