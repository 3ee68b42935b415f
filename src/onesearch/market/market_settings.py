"""The parameters of the market, each with the published figure it follows (table in ``docs/concepts.md``).

How large a market is, is a setting. How its shoppers, listings and logging engine behave is fixed: methods are compared
on one market, and a knob for every parameter would make as many markets.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from onesearch.common.settings import Settings


@dataclass(frozen=True)
class CatalogueParameters:
    """Items, brands, sellers and the noise of listings."""

    items_per_brand: float = 60.0
    items_per_seller: float = 25.0
    new_item_share: float = 0.15  # listed during the period, besides those of emerging sellers
    emerging_seller_share: float = 0.10
    stated: float = 0.62  # chance that a title states a latent attribute, clear departments
    stated_ambiguous: float = 0.45  # the same in ambiguous departments
    conflict: float = 0.03  # chance that a stated attribute is wrong, clear departments
    conflict_ambiguous: float = 0.09
    stuffed: float = 0.10  # chance of a foreign product word in the title, clear departments
    stuffed_ambiguous: float = 0.25
    marketing: float = 0.35
    field_stated: float = 0.6  # chance that the structured attributes hold a latent attribute
    popularity_sigma: float = 1.3  # log-normal popularity: the top 10 % of items get about half of the clicks


@dataclass(frozen=True)
class ShopperParameters:
    """Who shops, and what they want this week."""

    activity_sigma: float = 0.4
    interests: int = 3
    interest_kept_weekly: float = 0.75
    session_in_interest: float = 0.85
    gender_known: float = 0.9
    age_known: float = 0.85


@dataclass(frozen=True)
class QueryParameters:
    """What is typed."""

    complex_share: float = 0.33  # OneSearch-V2: one third of traffic
    session_continues: float = 0.40
    typo: float = 0.04
    gives_up_complex: float = 0.2  # a reformulation of a complex query falls back to a plain product word
    # Plain forms: noun | attribute + noun | two attributes + noun | brand + noun | brand | brand + model
    forms: tuple[float, ...] = (0.43, 0.28, 0.06, 0.12, 0.07, 0.04)
    # Complex: question, recommendation, ranking, knowledge, negation, alternatives
    complex_forms: tuple[float, ...] = (0.22, 0.26, 0.14, 0.16, 0.12, 0.10)
    # Page views of the training part that contain a need word: shares of words and bounds of three strata
    need_strata: tuple[tuple[float, float, float], ...] = ((0.25, 1.5, 8.0), (0.65, 8.0, 64.0), (0.10, 64.0, 256.0))
    second_trait: float = 0.2


@dataclass(frozen=True)
class EngineParameters:
    """The plain, non-personalised engine that produced the log."""

    page_size: int = 20
    candidates: int = 100
    popularity_weight: float = 0.55
    exploration: float = 0.9  # scale of the Gumbel noise on the score of a candidate
    category_slots: float = 0.10  # slots refilled with an item of a category of the query
    random_slots: float = 0.02
    understands_topic: float = 0.8  # rule-based understanding of complex queries, drawn once per query
    understands_trait: float = 0.6


@dataclass(frozen=True)
class ChoiceParameters:
    """Examination, click and order."""

    examination_exponent: float = 0.45  # P(rank k is examined) = k^-exponent
    click_bias: float = -1.5
    click_relevance: tuple[float, float, float, float] = (-5.0, -3.4, -1.3, 0.0)
    click_taste: float = 2.0
    click_price: float = 0.6
    click_quality: float = 1.1
    click_audience: float = -2.0
    click_focus: float = 0.8
    order_bias: float = -1.6
    order_relevance: tuple[float, float, float, float] = (-2.5, -1.5, -0.6, 0.0)
    order_taste: float = 0.8
    order_price: float = 0.6
    order_quality: float = 0.4
    order_audience: float = -1.0
    ranking_quality: float = 0.5  # added to the weight of quality in ranking-list queries
    gift_taste: float = 0.3  # share of one's own taste that counts when buying for others


@dataclass(frozen=True)
class KindParameters:
    """Videos and live rooms, where a market has them; no published figure says how much of them is asked for."""

    asked: float = 0.25  # plain page views that ask for a video or a live room, where the leaf has one
    asked_live: float = 0.6  # of these, those for a live room, more of which are dropped
    days_on: tuple[float, float] = (1.0, 5.0)  # how long a live room lasts
    said: float = 0.6  # chance that a transcript names a latent attribute of a product
    said_wrong: float = 0.1  # chance that what it names is another one
    click_asked: float = 1.0  # added to a click's log-odds where an item is of the kind that is asked for
    click_other: float = -2.5  # where it is of another kind
    click_unasked: float = -0.7  # where no kind is asked for, and it is no product
    rank_asked: float = 6.0  # added to the logging engine's score


class MarketSettings(Settings):
    """A whole market. The same settings make the same market, byte for byte."""

    items: int = Field(20_000, ge=200, description="items of the catalogue")
    users: int = Field(6_000, ge=10, description="shoppers")
    days: int = Field(60, ge=2, description="days that the log covers")
    page_views: Annotated[int, Field(ge=100)] | None = Field(None, description="page views; none: 12.5 per shopper")
    seed: int = Field(0, description="of everything that is drawn")
    start: str = Field("2025-01-06T00:00:00", description="first moment of the log, as ISO 8601")
    pictures: int = Field(0, ge=0, le=8, description="pictures of each item, drawn from what is true of it")
    picture_only: float = Field(
        0.0, ge=0, le=1, description="share of the colours and patterns that no text states: pictures alone show them"
    )
    videos: float = Field(0.0, ge=0, le=1, description="videos of products, as a share of the items; they come beside")
    live_rooms: float = Field(0.0, ge=0, le=1, description="live rooms of the log's days, likewise")
    later: ClassVar[frozenset[str]] = frozenset({"pictures", "picture_only", "videos", "live_rooms"})
    catalogue: ClassVar[CatalogueParameters] = CatalogueParameters()
    shoppers: ClassVar[ShopperParameters] = ShopperParameters()
    queries: ClassVar[QueryParameters] = QueryParameters()
    engine: ClassVar[EngineParameters] = EngineParameters()
    choice: ClassVar[ChoiceParameters] = ChoiceParameters()
    kinds: ClassVar[KindParameters] = KindParameters()

    @model_validator(mode="after")
    def _kinds_or_pictures(self) -> "MarketSettings":
        if self.pictures and self.has_kinds:
            raise ValueError("pictures are drawn of products alone: set pictures, or videos and live_rooms")
        return self

    @property
    def has_kinds(self) -> bool:
        """Whether it has more than products."""
        return bool(self.videos or self.live_rooms)

    @model_validator(mode="after")
    def _what_pictures_alone_show_needs_pictures(self) -> "MarketSettings":
        if self.picture_only and not self.pictures:
            raise ValueError("picture_only leaves words out that pictures show: set pictures, too, such as to 2")
        return self

    @property
    def n_page_views(self) -> int:
        """Number of page views to simulate."""
        return self.page_views if self.page_views is not None else round(12.5 * self.users)
