"""Settings of the search engine."""

from pydantic import Field

from onesearch.common.settings import Settings


class SearchSettings(Settings):
    """How the engine turns beams into a ranking."""

    width: int = Field(64, ge=1, le=512, description="beams")
    lexical: bool = Field(False, description="BM25: its best items join the candidates, its score the ranking")
    lexical_candidates: int = Field(50, ge=0, description="items BM25 adds to the candidates")
    clicked_candidates: int = Field(20, ge=0, description="items most clicked for the query added to the candidates")
    nearest: int = Field(50, ge=0, description="items nearest by the item score added to the candidates")
    evidence: bool = Field(True, description="items of the prompt's evidence added to the candidates")
    clicks: bool = Field(True, description="features from training clicks of the query and of its words")
    popularity: bool = Field(True, description="features from log training clicks of an item")
    taste: bool = Field(True, description="likeness to the shopper's last clicks, and the item's own numbers")
    relevance: float = Field(
        0.0, ge=0, description="weight of a relevance score fitted on judgments, added to the score fitted on clicks"
    )
