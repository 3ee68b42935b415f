"""Settings of the search engine."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from onesearch.common.settings import Settings
from onesearch.data.requests import LeaveOut


class SearchSettings(Settings):
    """How the engine turns beams into a ranking."""

    width: int = Field(64, ge=1, le=512, description="beams")
    generator: bool = Field(
        True, description="beams, log-probability and item score; off: the control that has everything else"
    )
    probability: bool = Field(True, description="features from powers of the probability, beside its logarithm")
    lexical: bool = Field(False, description="BM25: its best items join the candidates, its score the ranking")
    lexical_candidates: int = Field(50, ge=0, le=10000, description="items BM25 adds to the candidates")
    clicked_candidates: int = Field(
        20, ge=0, le=10000, description="items most clicked for the query added to the candidates"
    )
    nearest: int = Field(50, ge=0, le=10000, description="items nearest by the item score added to the candidates")
    evidence: bool = Field(True, description="items of the prompt's evidence added to the candidates")
    clicks: bool = Field(True, description="features from training clicks of the query and of its words")
    popularity: bool = Field(True, description="features from log training clicks of an item")
    taste: bool = Field(True, description="likeness to the shopper's last clicks, and the item's own numbers")
    pairs: bool = Field(True, description="features from items that other shoppers took with the shopper's")
    leave_out: LeaveOut = Field(
        "nothing", description="what the shopper has ordered, or clicked or ordered, is not shown again"
    )
    relevance: float = Field(
        0.0,
        ge=0,
        description="weight of a relevance score fitted on judgments, added to the score fitted on clicks; "
        "of the cascade, too",
    )
    boost: float = Field(
        1.0,
        ge=0,
        description="weight of the rewards' boosts in the order; at 1 a boost of 4 makes an item's odds fourfold, at 0 "
        "pages know no boost",
    )


BEAMS_ONLY: Mapping[str, Any] = {
    "probability": False,
    "lexical": False,
    "clicked_candidates": 0,
    "nearest": 0,
    "evidence": False,
    "clicks": False,
    "popularity": False,
    "taste": False,
    "pairs": False,
    "boost": 0.0,
}
MODEL_ONLY: Mapping[str, Any] = {**BEAMS_ONLY, "nearest": 50, "evidence": True}
"""Everything from the model's forward pass: beams, the evidence it reads, what is nearest by its item score."""
