"""Settings of the generative model."""

from typing import Literal

from pydantic import Field

from onesearch.common.settings import Settings
from onesearch.model.backbones import BackboneSettings


class EvidenceSettings(Settings):
    """What search finds before the model reads: items of the prompt, one token each (docs/method.md, 3.6)."""

    clicked: int = Field(0, ge=0, le=1000, description="items most clicked for the query")
    lexical: int = Field(0, ge=0, le=1000, description="best items by BM25")
    nearest: int = Field(0, ge=0, le=1000, description="items nearest to the query by the text encoder")
    together: int = Field(0, ge=0, le=1000, description="items that other shoppers took with those of the history")
    most: int = Field(48, ge=1, le=1000, description="items of all four kinds together, at most")

    @property
    def any(self) -> bool:
        """Whether there is any."""
        return bool(self.clicked or self.lexical or self.nearest or self.together)


class PromptSettings(Settings):
    """Which parts the model reads (docs/method.md, section 3) and how much of each."""

    query_tokens: int = Field(24, ge=1, le=512, description="subword tokens kept of a query")
    recent_queries: int = Field(3, ge=0, le=100, description="recent queries in Seq_q")
    short: int = Field(5, ge=0, le=1000, description="recent items in Seq_short, five tokens each (the paper's window)")
    long: int = Field(50, ge=0, le=10000, description="items per stream of Seq_long")
    clicked_for_query: int = Field(
        5, ge=0, le=1000, description="items most clicked for the query, used to fill missing history"
    )
    think: int = Field(0, ge=0, le=1000, description="reasoning tokens after the input of a prompt without keywords")
    uid: bool = Field(True, description="codes of the shopper, made of recent and ordered items")
    query_sid: bool = Field(True, description="the query's semantic ID")
    profile: bool = Field(True, description="gender and age band")
    query_vector: bool = Field(True, description="the dense query vector as one soft token")
    fill: Literal["none", "missing", "always"] = Field(
        "always",
        description="items most clicked for the query: nowhere; where history is missing (the paper); "
        "or there and, for every shopper, as a prompt part of their own",
    )
    item_tokens: Literal["sid", "row"] = Field(
        "sid", description="an item of Seq_short as the tokens of its SID (the paper), or as one token: its head row"
    )
    evidence: EvidenceSettings = EvidenceSettings()

    @property
    def has_item_tokens(self) -> bool:
        """Whether items enter as one token each."""
        return self.evidence.any or self.item_tokens == "row"


class ModelSettings(Settings):
    """Size and form of the generator."""

    backbone: BackboneSettings = BackboneSettings()
    prompt: PromptSettings = PromptSettings()
    text_vocabulary: int = Field(8000, ge=300, le=1000000, description="subwords, when no pretrained tokenizer is used")
    long_vectors: int = Field(3, ge=1, le=100, description="N_M, vectors the Q-Former compresses Seq_long to")
    anchored: bool = Field(True, description="item head on node-mean rows; off: codebook rows masked to legal children")
    legal_softmax: bool = Field(
        True,
        description="train on the softmax over legal children; off: over whole codebooks, whose rows, masked to "
        "legal children, then decode whatever `anchored` says",
    )
    free_codes: bool = Field(
        False, description="item head: a learned logit of each code is added to that of the anchored row"
    )
    item_memory: bool = Field(
        False,
        description="a learned vector of each training item, at its token and in the item score; new items have none",
    )
    word_rows: bool = Field(
        False, description="a learned row of each subword stands in for keywords where the item head starts (V2)"
    )
    item_score: bool = Field(True, description="the item score s and its contrastive loss")
    row_dim: int = Field(128, ge=4, le=128, description="dimension of an item's row in the index")
    row_precision: Literal["float32", "bfloat16", "int8"] = Field("float32", description="numbers of the rows")
