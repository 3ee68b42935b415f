"""The settings of a run: one frozen section per package, read from a file in ``configs/``."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from onesearch.common.settings import Settings, validated
from onesearch.data.split import By
from onesearch.encoding.encoder_alignment import EncoderAlignmentSettings
from onesearch.encoding.khqe import KHQESettings
from onesearch.encoding.pictures.picture_settings import PictureSettings, TowerSettings
from onesearch.encoding.static_encoder import StaticSettings
from onesearch.evaluation.cascade import CascadeSettings
from onesearch.evaluation.evaluate import MeasureSettings
from onesearch.market.market_settings import MarketSettings
from onesearch.model.model_settings import ModelSettings
from onesearch.pipeline.config_files import read_yaml
from onesearch.pipeline.understanding_stage import UnderstandingSettings
from onesearch.search.boosts import Boost
from onesearch.search.rules import Rules
from onesearch.search.search_settings import SearchSettings
from onesearch.training.dpo import DpoSettings
from onesearch.training.grpo import GrpoSettings
from onesearch.training.rewards import RewardSettings
from onesearch.training.self_distillation import DistillationSettings
from onesearch.training.sft_settings import (
    CoTSettings,
    FinalSettings,
    PersonalisationSettings,
    PseudoQuerySettings,
    SemanticTaskSettings,
)


class DataSettings(Settings):
    """Where the data comes from, exactly one of ``market``, ``mapping``, ``kuaisearch`` and ``folder``; its split."""

    market: MarketSettings | None = Field(None, description="a simulated marketplace, made by the run itself")
    mapping: Path | None = Field(None, description="YAML mapping of your own files; see docs/your-own-data.md")
    kuaisearch: Path | None = Field(None, description="folder with files in the KuaiSearch schema")
    folder: Path | None = Field(None, description="a dataset made by `onesearch data import`")
    root: Path | None = Field(None, description="folder that relative paths of the mapping start from")
    split: By = Field(
        "auto",
        description="time, query, or auto: time where every page view has one; leave-one-out: each shopper's last page "
        "view with a click tests, the one before validates; given: as the column split of the page views says",
    )
    valid: float = Field(
        0.1, ge=0, lt=1, description="share of the page views (or queries) for validation; by time and query only"
    )
    test: float = Field(0.1, ge=0, lt=1, description="share for the final figures; by time and query only")

    @model_validator(mode="after")
    def _one_source(self) -> "DataSettings":
        given = [n for n in ("market", "mapping", "kuaisearch", "folder") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"name exactly one of market, mapping, kuaisearch and folder, got {given or 'none'}")
        return self


class LexiconSettings(Settings):
    """Keyword mining and fusion (docs/method.md (2.7))."""

    fuse: bool = Field(True, description="fuse keyword vectors into text vectors")
    per_type: int = Field(2000, ge=0, description="keywords kept of each of the 18 types")


class EncoderSettings(Settings):
    """The text encoder and its alignment."""

    fields: tuple[str, ...] = Field(("title", "brand"), description="item columns that make an item's text")
    transformer: str | None = Field(None, description="name or path of a sentence-transformers model; else static")
    static: StaticSettings = StaticSettings()
    align: EncoderAlignmentSettings = EncoderAlignmentSettings()
    folds: int = Field(2, ge=0, description="encoders for held-out query vectors; 0 switches them off")
    later: ClassVar[frozenset[str]] = frozenset({"encoding", "pictures"})
    encoding: Literal["text", "unified", "concat"] = Field(
        "text",
        description="what an item's vector is made of: its text; text and picture in one tower, trained together; both "
        "side by side. Needs a section pictures",
    )
    pictures: TowerSettings = TowerSettings()


class EvaluationSettings(Settings):
    """What the report compares and on how many requests."""

    measures: MeasureSettings = MeasureSettings()
    cascade: CascadeSettings = CascadeSettings()
    baselines: bool = Field(True, description="BM25, dense, fused, most clicked and the cascade beside the engine")
    fit_requests: int = Field(3000, ge=1, description="validation page views that weights are fitted on, at most")
    test_requests: int = Field(20_000, ge=1, description="test page views, at most")


class RunSettings(Settings):
    """Everything a run depends on."""

    name: str = Field("run", description="for the reader of the file; a run is called by its folder")
    seed: int = Field(0, description="makes data, training and evaluation repeatable")
    training_seed: int | None = Field(
        None, description="seed of the generator's training alone, so that several share data, encoder and SIDs"
    )
    data: DataSettings
    lexicon: LexiconSettings = LexiconSettings()
    pictures: PictureSettings | None = Field(
        None,
        description="true, or settings: encode the items' pictures; encoder.encoding says what becomes of them",
    )
    encoder: EncoderSettings = EncoderSettings()
    khqe: KHQESettings = KHQESettings()
    model: ModelSettings = ModelSettings()
    sft1: SemanticTaskSettings = SemanticTaskSettings()
    sft2: SemanticTaskSettings = SemanticTaskSettings()
    pseudo: PseudoQuerySettings = PseudoQuerySettings()
    sft3: PersonalisationSettings = PersonalisationSettings()
    understanding: UnderstandingSettings = UnderstandingSettings()
    cot: CoTSettings = CoTSettings()
    distill: DistillationSettings = DistillationSettings()
    rewards: RewardSettings = RewardSettings()
    rewards_file: Path | None = Field(
        None, description="YAML with the rewards' settings, and a shop's rules, read before every round"
    )
    dpo: DpoSettings = DpoSettings()
    grpo: GrpoSettings = GrpoSettings()
    search: SearchSettings = SearchSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    final: FinalSettings | None = Field(
        None, description="true, or settings: an engine of all page views, made after the report, is what is served"
    )

    @field_validator("final", "pictures", mode="before")
    @classmethod
    def _true_has_the_defaults(cls, given: Any) -> Any:
        return ({} if given else None) if isinstance(given, bool) else given

    @model_validator(mode="after")
    def _alignment_needs_v2(self) -> "RunSettings":
        if (self.dpo.steps or self.grpo.steps) and (not self.has_v2 or self.distill.keywords == "input"):
            raise ValueError(
                "dpo and grpo align V2: set understanding.producer, and distill.keywords to 'teacher' or 'none'"
            )
        return self

    @model_validator(mode="after")
    def _parts_of_a_model_have_limits(self) -> "RunSettings":
        distilled = self.has_v2 and self.distill.keywords == "teacher"
        if self.sft3.loop.shard and distilled and (self.distill.fgm or self.distill.ema):
            raise ValueError(
                "sft3.loop.shard counts for distill, too, whose adversarial step and averaged teacher need the whole"
                " model in each process: set distill.fgm and distill.ema to 0"
            )
        return self

    @model_validator(mode="after")
    def _towers_need_pictures(self) -> "RunSettings":
        if self.encoder.encoding != "text" and self.pictures is None:
            raise ValueError(
                f"encoder.encoding {self.encoder.encoding} needs pictures: add a section 'pictures' (pictures: true "
                "takes its defaults), or set encoder.encoding to text"
            )
        return self

    @model_validator(mode="after")
    def _a_market_thinks_of_its_own(self) -> "RunSettings":
        if self.understanding.producer == "market" and self.data.market is None:
            raise ValueError(
                "understanding.producer: market is the stand-in of a simulated market, and the data is none; set it to"
                " 'log-expert' (keywords from the click log), 'llm' (a language model) or, without V2, 'none'"
            )
        return self

    def rewards_now(self) -> RewardSettings:
        """Weights and boosts: of the file that ``rewards_file`` names, read anew; what it does not say, as in the run.

        The file may be a shop's rules, of which those boosts count that hold for every search, and now.
        """
        if self.rewards_file is None:
            return self.rewards
        values = read_yaml(self.rewards_file)
        rules = validated(Rules, {key: values[key] for key in Rules.model_fields if key in values}, self.rewards_file)
        weights = {key: value for key, value in values.items() if key not in Rules.model_fields}
        boosts = rules.of_rewards(datetime.now(UTC))
        return validated(RewardSettings, {**self.rewards.model_dump(), **weights, "boosts": boosts}, self.rewards_file)

    def boosts_now(self) -> tuple[Boost, ...]:
        """The boosts that the order of pages knows: those of the rewards, unless ``search.boost`` is 0."""
        return self.rewards_now().boosts if self.search.boost else ()

    @property
    def has_v2(self) -> bool:
        """Whether V2 is trained beside V1."""
        return self.understanding.producer != "none"
