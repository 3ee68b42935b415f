"""How a language model is reached, what it may cost, what it has cost, and how it can fail."""

import os
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from onesearch.data.settings import Section

BASE_URL: Final = "ONESEARCH_LLM_BASE_URL"
MODEL: Final = "ONESEARCH_LLM_MODEL"
API_KEY: Final = "ONESEARCH_LLM_API_KEY"


def name_of(model: str) -> str:
    """The name under which a model's thoughts are kept."""
    return f"llm:{model}"


class LLMError(RuntimeError):
    """The server cannot be used as configured; the message says what to change."""


class LLMUnavailableError(RuntimeError):
    """The server did not answer although it was asked several times; later it may."""


class BudgetSpent(RuntimeError):  # noqa: N818 - an end that the user asked for, not a mistake
    """No further call is allowed by ``max_calls`` or ``max_tokens``."""


class LLMConfig(Section):
    """Which model is asked, how patiently, and what it may cost. The API key is read from ``ONESEARCH_LLM_API_KEY``
    when the first call is made and kept nowhere.
    """

    base_url: str = Field(
        default_factory=lambda: os.environ.get(BASE_URL, ""), description=f"address ending in /v1; default ${BASE_URL}"
    )
    model: str = Field(default_factory=lambda: os.environ.get(MODEL) or "Qwen3-32B", min_length=1)
    concurrency: int = Field(16, ge=1, description="calls in flight")
    timeout: float = Field(60.0, gt=0, description="seconds for one call")
    retries: int = Field(5, ge=0, description="further attempts after a failure that may pass")
    backoff: float = Field(0.5, ge=0, description="seconds before the first further attempt; doubles each time")
    longest_backoff: float = Field(20.0, ge=0)
    temperature: float = Field(0.0, ge=0)
    answer_tokens: int = Field(1000, ge=1, description="longest answer")
    extra_body: dict[str, Any] = Field({}, description="further fields of the request, such as chat_template_kwargs")
    max_calls: int | None = Field(None, ge=0, description="budget of calls, further attempts included")
    max_tokens: int | None = Field(
        None, ge=0, description="budget of tokens read and written; calls in flight when it ends may exceed it"
    )
    price_in: float = Field(0.0, ge=0, description="price of a million tokens read")
    price_out: float = Field(0.0, ge=0, description="price of a million tokens written")

    @field_validator("base_url")
    @classmethod
    def _no_password(cls, value: str) -> str:
        if "@" in urlsplit(value).netloc:
            raise ValueError(f"base_url holds a password; give it as {API_KEY} instead, which is kept nowhere")
        return value


@dataclass
class Usage:
    """What a producer has used so far."""

    calls: int = 0
    retries: int = 0
    repaired: int = 0
    dropped: int = 0
    """Parts of answers that were left out: off the catalogue, not stated, too many."""
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.tokens_in + self.tokens_out
