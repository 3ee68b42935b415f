"""What the HTTP service needs of a search engine; ``search.engine.SearchEngine`` is the real one."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from onesearch.data.live_clicks import LiveClicks
from onesearch.data.records import Item
from onesearch.search.results import FilterChoices, SearchRequest, SearchResults
from onesearch.search.rules import Rules
from onesearch.search.shopper_history import ShopperHistory
from onesearch.search.suggestions import Suggestion
from onesearch.search.word_matches import WordMatch


class Engine(Protocol):
    """A search engine as the service sees it.

    ``search_batch``, ``search_lexical``, ``upsert`` and ``delete`` may be called from different threads at once: a
    search sees the catalogue before or after a change, never a half. ValueError means "the request is wrong" and is
    shown to the caller.
    """

    logged_until: datetime | None
    """Clicks up to then are in the engine's own counts; None where that is unknown."""

    @property
    def version(self) -> str:
        """Names the loaded run and the state of its catalogue."""

    @property
    def explains(self) -> bool:
        """Whether it can say why an item stands where it does; one that cannot refuses to."""

    def close(self) -> None:
        """It is not asked any more."""

    def __len__(self) -> int:
        """Number of searchable items."""

    def search_batch(self, requests: Sequence[SearchRequest]) -> list[SearchResults]:
        """The results of each request, best first."""

    def search_lexical(
        self,
        query: str,
        k: int = 10,
        filters: Mapping[str, Any] | None = None,
        groups: Sequence[str] = (),
        rules: Rules | None = None,
    ) -> SearchResults:
        """The BM25 ranking shown beside the engine's, without what rules hide for some groups of shoppers."""

    def similar(self, item_id: str, k: int = 10, filters: Mapping[str, Any] | None = None) -> SearchResults:
        """The items most like one; KeyError where there is no such item."""

    def word_matches(self, query: str, items: Sequence[Item]) -> list[tuple[WordMatch, ...]]:
        """Where the words of a query stand in each item."""

    def suggest(self, text: str, k: int = 8) -> list[Suggestion]:
        """What a shopper may go on to type, best first."""

    def logged_history(self, user: str) -> ShopperHistory:
        """What the data set knows of a shopper, before anything this service recorded; empty for a stranger."""

    def item(self, item_id: str) -> Item | None:
        """A searchable item's record, or None."""

    def sid(self, item_id: str) -> tuple[int, ...]:
        """A searchable item's semantic ID as level-local codes; () when it has none."""

    def prepare(self, items: Sequence[Item]) -> Mapping[str, int]:
        """Do ahead what takes long of an upsert and needs no turn: pictures; numbers of its outcomes, by name."""

    def upsert(self, items: Sequence[Item]) -> None:
        """Add or replace items; searchable when the call returns."""

    def delete(self, item_ids: Sequence[str]) -> int:
        """Remove items; how many were known, unknown ids are ignored."""

    @property
    def rules(self) -> Rules:
        """The rules in force."""

    def follow_rules(self, rules: Rules | None) -> None:
        """Search under other rules from the next search on; None: as if there never were any."""

    def rule_problems(self, rules: Rules) -> dict[str, str]:
        """Why rules cannot work here, by their name, such as an item that the catalogue has not."""

    def in_log_counts(self, item_id: str) -> bool:
        """Whether the engine's own counts hold an item's clicks: not those of one that came later."""

    def count(self, live: LiveClicks) -> None:
        """Let clicks since the log move items up from the next search on; they take the place of earlier ones."""

    def filters_available(self) -> FilterChoices:
        """Filter values to offer."""

    def shoppers(self, limit: int) -> list[str]:
        """Some shoppers with a history, for the page's picker."""

    def example_queries(self, limit: int) -> list[str]:
        """Some queries worth trying; may be empty."""
