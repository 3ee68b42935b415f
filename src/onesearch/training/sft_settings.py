"""Settings of the supervised stages: semantic tasks (SFT 1, 2), CoT tasks, personalisation (SFT 3), the final one."""

from typing import ClassVar

from pydantic import Field

from onesearch.common.settings import Settings
from onesearch.training.loop import LoopSettings


class SemanticTaskSettings(Settings):
    """SFT 1 and 2: shares of the semantic tasks (docs/method.md, section 5), and the loop."""

    loop: LoopSettings = LoopSettings()
    batch_size: int = Field(256, ge=1, description="examples of a batch")
    steps: int = Field(200, ge=0, description="batches")
    tasks: dict[str, float] = Field(default_factory=dict, description="task name → share of the batches")
    text_tokens: int = Field(16, ge=1, description="subwords kept of a text target")
    score_weight: float = Field(1.0, ge=0, description="weight of the item score's contrastive loss")
    score_negatives: int = Field(8192, ge=1, description="uniformly drawn items beside the batch's own targets")
    codebook_weight: float = Field(0.03, ge=0, description="weight of the codebook head on item targets")


class CoTSettings(SemanticTaskSettings):
    """The stage of the CoT tasks (docs/method.md, section 4); ``tasks`` may name semantic tasks as well."""

    steps: int = Field(0, ge=0, description="batches")
    keyword_tokens: int = Field(32, ge=1, description="subwords kept of the text of a query's keywords")
    page_views: int = Field(20_000, ge=1, description="page views sampled for the personalised tasks, at most")


class PersonalisationSettings(Settings):
    """SFT 3: the full input to the clicked and ordered items."""

    later: ClassVar[frozenset[str]] = frozenset({"label_smoothing"})
    loop: LoopSettings = LoopSettings()
    batch_size: int = Field(256, ge=1, description="examples of a batch")
    epochs: float = Field(2.0, ge=0, description="passes over the searches")
    order_weight: float = Field(2.0, ge=0, description="weight of an ordered target; a clicked one has 1")
    frequency_power: float = Field(0.5, ge=0, le=1, description="a query seen n times is sampled n^power times")
    score_weight: float = Field(1.0, ge=0, description="weight of the item score's contrastive loss")
    score_negatives: int = Field(8192, ge=1, description="uniformly drawn items beside the batch's own targets")
    codebook_weight: float = Field(0.03, ge=0, description="weight of the codebook head on item targets")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of an item target's probability that all legal tokens get alike"
    )
    pseudo_share: float = Field(0.25, ge=0, lt=1, description="share of batches that train on pseudo-queries of titles")
    part_dropout: float = Field(
        0.2, ge=0, lt=1, description="share of the prompts in which a kind of evidence is left out"
    )
    held_out_vectors: bool = Field(True, description="training queries use vectors of an encoder that never saw them")


class PseudoQuerySettings(Settings):
    """Searches that nobody made, ranked by the engine without generator: what stage 3 learns beside the log."""

    searches: int = Field(
        0, ge=0, description="how many; 0: pseudo-queries are pieces of titles, the only right answer is that item"
    )
    titles: float = Field(1.0, ge=0, description="share of pieces of titles")
    traits: float = Field(1.0, ge=0, description="share of category, brand and attribute values of an item")
    rewritten: float = Field(1.0, ge=0, description="share of queries of the log put together anew")
    items: int = Field(8, ge=1, description="items of the teacher's ranking that are learnt, the best ones")
    temperature: float = Field(1.0, gt=0, description="their weights are the softmax of score over temperature")


class FinalSettings(Settings):
    """The final engine, which is made of all page views after the report and served in place of the measured one.

    ``final: true`` makes it with these settings, ``false`` makes none. Stage 3 goes on, V2's with its teacher; all else
    of it is as in ``sft3``.
    """

    epochs: float = Field(
        1.0,
        ge=0,
        description="passes over the validation and test page views and as many others; 0 renews the counts alone",
    )
    learning_rate_factor: float = Field(0.1, gt=0, description="peak learning rate, as a multiple of stage 3's")
