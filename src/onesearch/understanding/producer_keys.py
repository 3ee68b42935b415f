"""Who thinks, by the name that commands and tables of thoughts know, and how a cache names their thoughts."""

from typing import Final, Literal

from onesearch.understanding.encoder_producer import EncoderProducer
from onesearch.understanding.llm_producer import LLMSettings, producer_name
from onesearch.understanding.llm_prompts import KEYWORDS_VERSION, VERSION
from onesearch.understanding.log_expert import LogExpert

ProducerKind = Literal["llm", "llm-keywords", "log-expert", "encoder", "market"]
STAND_IN: Final = "stand-in"
"""Model name of the market's stand-in, so that its thoughts are never taken for those of a real model."""


def producer_key(kind: ProducerKind) -> tuple[str, str]:
    """Name and version under which a cache keeps a producer's thoughts; a model's name is the environment's."""
    if kind == "log-expert":
        return LogExpert.name, LogExpert.version
    if kind == "encoder":
        return EncoderProducer.name, EncoderProducer.version
    version = KEYWORDS_VERSION if kind == "llm-keywords" else VERSION
    return producer_name(STAND_IN if kind == "market" else LLMSettings().model), version
