"""The parameters of the market, each with the published figure it follows (table in ``docs/concepts.md``)."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from onesearch.common.settings import Settings

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class CatalogueSettings(Settings):
    """Items, brands, sellers and the noise of listings."""

    items_per_brand: float = 60.0
    items_per_seller: float = 25.0
    new_item_share: Share = 0.15  # listed during the period, besides those of emerging sellers
    emerging_seller_share: Share = 0.10
    stated: Share = 0.62  # chance that a title states a latent attribute, clear departments
    stated_ambiguous: Share = 0.45  # the same in ambiguous departments
    conflict: Share = 0.03  # chance that a stated attribute is wrong, clear departments
    conflict_ambiguous: Share = 0.09
    stuffed: Share = 0.10  # chance of a foreign product word in the title, clear departments
    stuffed_ambiguous: Share = 0.25
    marketing: Share = 0.35
    field_stated: Share = 0.6  # chance that the structured attributes hold a latent attribute
    popularity_sigma: float = 1.3  # log-normal popularity: the top 10 % of items get about half of the clicks


class ShopperSettings(Settings):
    """Who shops, and what they want this week."""

    activity_sigma: float = 0.4
    interests: int = 3
    interest_kept_weekly: Share = 0.75
    session_in_interest: Share = 0.85
    gender_known: Share = 0.9
    age_known: Share = 0.85


class QuerySettings(Settings):
    """What is typed."""

    complex_share: Share = 0.33  # OneSearch-V2: one third of traffic
    session_continues: Share = 0.40
    typo: Share = 0.04
    gives_up_complex: Share = 0.2  # a reformulation of a complex query falls back to a plain product word
    # Plain forms: noun | attribute + noun | two attributes + noun | brand + noun | brand | brand + model
    forms: tuple[float, ...] = (0.43, 0.28, 0.06, 0.12, 0.07, 0.04)
    # Complex: question, recommendation, ranking, knowledge, negation, alternatives
    complex_forms: tuple[float, ...] = (0.22, 0.26, 0.14, 0.16, 0.12, 0.10)
    # Page views of the training part that contain a need word: shares of words and bounds of three strata
    need_strata: tuple[tuple[float, float, float], ...] = ((0.25, 1.5, 8.0), (0.65, 8.0, 64.0), (0.10, 64.0, 256.0))
    second_trait: Share = 0.2


class EngineSettings(Settings):
    """The plain, non-personalised engine that produced the log."""

    page_size: int = 20
    candidates: int = 100
    popularity_weight: float = 0.55
    exploration: float = 0.9  # scale of the Gumbel noise on the score of a candidate
    category_slots: Share = 0.10  # slots refilled with an item of a category of the query
    random_slots: Share = 0.02
    understands_topic: Share = 0.8  # rule-based understanding of complex queries, drawn once per query
    understands_trait: Share = 0.6


class ChoiceSettings(Settings):
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


class MarketSettings(Settings):
    """A whole market. The same config makes the same market, byte for byte."""

    items: Annotated[int, Field(ge=200)] = 20_000
    users: Annotated[int, Field(ge=10)] = 6_000
    days: Annotated[int, Field(ge=2)] = 60
    page_views: Annotated[int, Field(ge=100)] | None = None  # None: 12.5 per user
    seed: int = 0
    start: str = "2025-01-06T00:00:00"
    catalogue: CatalogueSettings = CatalogueSettings()
    shoppers: ShopperSettings = ShopperSettings()
    queries: QuerySettings = QuerySettings()
    engine: EngineSettings = EngineSettings()
    choice: ChoiceSettings = ChoiceSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.engine.candidates < self.engine.page_size:
            raise ValueError(
                f"engine.candidates ({self.engine.candidates}) is below engine.page_size ({self.engine.page_size}); "
                "raise the first or lower the second"
            )
        return self

    @property
    def n_page_views(self) -> int:
        """Number of page views to simulate."""
        return self.page_views if self.page_views is not None else round(12.5 * self.users)
