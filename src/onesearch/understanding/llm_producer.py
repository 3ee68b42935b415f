"""Thoughts by a language model behind an OpenAI-compatible server, local or remote."""

import asyncio
import json
import os
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator

from onesearch.common.bounded_responses import bounded_async
from onesearch.common.extras import from_extra
from onesearch.common.settings import Settings
from onesearch.understanding import llm_prompts as prompts
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.keyword_extraction import holds_phrase, validated
from onesearch.understanding.llm_prompts import Messages
from onesearch.understanding.preference_calibration import HistoryTexts
from onesearch.understanding.thought import MOST_KEYWORDS, Grounding, Thought, ThoughtError

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

_T = TypeVar("_T")
BASE_URL: Final = "ONESEARCH_LLM_BASE_URL"
MODEL: Final = "ONESEARCH_LLM_MODEL"
API_KEY: Final = "ONESEARCH_LLM_API_KEY"
_LONGEST_ANSWER: Final = 20_000  # characters
_MOST_BYTES: Final = 1 << 20  # of a response, what stands around the answer included
_REFUSALS: Final = 3  # before any answer; a single query may be refused for its words, all of them for the setup
_PASSING_STATUS: Final = frozenset([408, 409, 425, 429])  # and all from 500 on
_THINKING: Final = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)


def producer_name(model: str) -> str:
    """The name under which a model's thoughts are kept."""
    return f"llm:{model}"


class LLMError(RuntimeError):
    """The server cannot be used as configured; the message says what to change."""


class LLMUnavailableError(RuntimeError):
    """The server did not answer although it was asked several times; later it may."""


class AnswerRefusedError(ThoughtError):
    """The server does not take this question; asking again in other words would not help."""


class BudgetSpent(RuntimeError):  # noqa: N818 - an end that the user asked for, not a mistake
    """No further call is allowed by ``max_calls`` or ``max_tokens``."""


class LLMSettings(Settings):
    """Which model is asked, how patiently, and what it may cost. The API key is read from ``ONESEARCH_LLM_API_KEY``
    when the first call is made and kept nowhere.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # a refused address may hold a password

    base_url: str = Field(
        default_factory=lambda: os.environ.get(BASE_URL, ""), description=f"address ending in /v1; default ${BASE_URL}"
    )
    model: str = Field(
        default_factory=lambda: os.environ.get(MODEL) or "Qwen3-32B",
        min_length=1,
        description=f"name on the server; default ${MODEL}",
    )
    concurrency: int = Field(16, ge=1, description="calls in flight")
    timeout: float = Field(60.0, gt=0, description="seconds for one call, its whole answer included")
    retries: int = Field(5, ge=0, description="further attempts after a failure that may pass")
    backoff: float = Field(0.5, ge=0, description="seconds before the first further attempt; doubles each time")
    longest_backoff: float = Field(20.0, ge=0, description="seconds between two attempts at most")
    temperature: float = Field(0.0, ge=0, description="of sampling")
    answer_tokens: int = Field(1000, ge=1, description="longest answer")
    response_format: prompts.FormatKind = Field(
        "json_schema", description="how the schema of an answer is sent; json_object for servers that know no other"
    )
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


class LLMProducer:
    """A :class:`~onesearch.understanding.thought.Producer` that asks a model, at most ``concurrency`` times at once.

    Answers are untrusted: what is not in the form asked for or not in the catalogue is refused, once with the reason
    and a second chance. One instance serves one event loop at a time; call :meth:`close` before the loop ends.
    """

    def __init__(self, words: Grounding, config: LLMSettings | None = None) -> None:
        """``words``: the catalogue that answers must keep to; its category tree is listed in the prompt.

        Raises:
            LLMError: no server address.
        """
        self.config = config or LLMSettings()
        if not self.config.base_url:
            raise LLMError(f"no language model server: give its address, ending in /v1, by --base-url or {BASE_URL}")
        self.name = producer_name(self.config.model)
        self.version = prompts.VERSION
        self.usage = Usage()
        self._words = words
        self._paths = words.paths if isinstance(words, CatalogueVocabulary) else []
        self._systems: dict[prompts.Language, str] = {}
        self._client: AsyncOpenAI | None = None
        self._turns: asyncio.Semaphore | None = None
        self._answered = False
        self._refusals = 0

    async def think(self, query: str) -> Thought:
        """Steps 1 and 2 for a normalised query.

        Raises:
            ThoughtError: no usable answer, also after one repair.
            LLMUnavailableError: no answer after all attempts.
            LLMError: a refusal that no further attempt can change.
            BudgetSpent: no calls or tokens left.
        """
        language = prompts.detect_language(query)
        if language not in self._systems:
            self._systems[language] = prompts.understand_system(language, self._paths)
        asked = prompts.messages(query, self._systems[language])
        thought, dropped = await self._ask_twice(
            asked,
            prompts.ANSWER_SCHEMA,
            lambda answer: validated(answer, query, self.name, self.version, self._words),
        )
        self.usage.dropped += len(dropped)
        return thought

    async def calibrate(self, thought: Thought, history: HistoryTexts) -> tuple[str, ...]:
        """Step 3: at most eight keywords of the catalogue for one shopper; none if the query wants no merchandise.

        They belong to the shopper: keep them with ``put_personal``, never in a thought. Raises like :meth:`think`.
        """
        if thought.analysis.intent != "merchandise":
            return ()
        language = prompts.detect_language(thought.query)
        asked = prompts.calibrate_messages(thought.query, thought.keywords, history, language)
        offered = await self._ask_twice(asked, prompts.KEYWORDS_SCHEMA, offered_keywords)
        # Untrusted as every answer: the catalogue's spelling, nothing that the query rules out, at most eight.
        ruled_out = [attribute.value for attribute in thought.analysis.attributes if attribute.negated]
        found = [keyword for text in offered if (keyword := self._words.keyword(text)) is not None]
        kept = [k for k in dict.fromkeys(found) if not any(holds_phrase(k, value) for value in ruled_out)]
        self.usage.dropped += len(offered) - len(kept[:MOST_KEYWORDS])
        return tuple(kept[:MOST_KEYWORDS])

    async def close(self) -> None:
        """Close connections; a later call opens new ones."""
        client, self._client, self._turns = self._client, None, None
        if client is not None:
            await client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask_twice(self, asked: Messages, schema: Mapping[str, Any], read: Callable[[dict[str, Any]], _T]) -> _T:
        """What ``read`` makes of the answer; one that breaks a rule gets a second chance, with the reason."""
        try:
            return read(await self._ask(asked, schema))
        except AnswerRefusedError:
            raise
        except ThoughtError as error:
            usable = read(await self._ask(prompts.repair_messages(asked, str(error)), schema))
        self.usage.repaired += 1
        return usable

    async def _ask(self, asked: Messages, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that the model answers; ThoughtError for anything else."""
        if self._turns is None:
            self._turns = asyncio.Semaphore(self.config.concurrency)
        attempts, failure = self.config.retries + 1, _PassingFailure("")
        for attempt in range(attempts):
            if attempt:
                # Twice as long as before, half of it by chance, so that calls which failed together do not come back
                # together; longer if the server says so.
                longest = min(self.config.backoff * 2 ** (attempt - 1), self.config.longest_backoff)
                backoff = longest * (0.5 + 0.5 * random.random())
                await asyncio.sleep(max(backoff, min(failure.retry_after, self.config.longest_backoff)))
                self.usage.retries += 1
            async with self._turns:  # given back while waiting, so that a slow failure does not block others
                self._check_budget()
                self.usage.calls += 1
                answer = await self._attempt(asked, schema)
            if isinstance(answer, str):
                return json_object(answer)
            failure = answer
        # Some servers have no better word than 500 for a form that they do not know.
        form = "" if self._answered else f"; does it know response_format {self.config.response_format}?"
        reason = failure.reason + (form if "status" in failure.reason else "")
        raise LLMUnavailableError(f"no answer from the language model in {attempts} attempts: {reason}")

    async def _attempt(self, asked: Messages, schema: Mapping[str, Any]) -> "str | _PassingFailure":
        """One call: the text of the answer, or why it failed if that may pass."""
        with from_extra("llm"):
            import openai  # takes a second to import, which users of other producers need not wait for

        config = self.config
        try:
            # The client's own timeout is that of one read: an answer that drops in byte by byte never meets it.
            async with asyncio.timeout(config.timeout):
                # The client's typed call walks the whole schema every time: half of what a call costs here.
                answer: Any = await self._connected().post(
                    "/chat/completions",
                    cast_to=object,
                    body={
                        "model": config.model,
                        "messages": asked,
                        "temperature": config.temperature,
                        "max_tokens": config.answer_tokens,
                        "response_format": prompts.response_format(dict(schema), config.response_format),
                        **config.extra_body,
                    },
                )
        except TimeoutError:
            return _PassingFailure("timed out")
        except ThoughtError:
            raise
        except RecursionError:
            raise ThoughtError("malformed answer: nested too deeply") from None
        except openai.APIStatusError as error:
            return self._refused(error)
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, ThoughtError):  # as some versions of the client say it
                raise error.__cause__ from None
            return _PassingFailure("timed out" if isinstance(error, openai.APITimeoutError) else "could not be reached")
        except (openai.APIError, ValueError) as error:
            return _PassingFailure(f"its answer could not be read ({type(error).__name__})")
        # Tokens count whatever the answer is worth.
        try:
            self._count(answer)
            choice = answer["choices"][0]
            content = choice["message"]["content"]
            finished = choice.get("finish_reason")
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return _PassingFailure("its answer is no chat completion")
        self._answered = True
        if finished == "length":
            raise ThoughtError(f"malformed answer: longer than {config.answer_tokens} tokens")
        if not isinstance(content, str) or not content.strip():
            raise ThoughtError("malformed answer: empty")
        return content

    def _refused(self, error: "APIStatusError") -> "_PassingFailure":
        """What a status other than 200 means. The server's words stay out of messages: they may repeat the key."""
        status = error.status_code
        if status in _PASSING_STATUS or status >= 500:
            return _PassingFailure(
                f"it answered with status {status}", _seconds(error.response.headers.get("retry-after"))
            )
        where = f"the language model server answered with status {status}"
        if status in (401, 403):
            raise LLMError(f"{where}: set a valid key in the environment variable {API_KEY}") from None
        if 300 <= status < 400:
            raise LLMError(f"{where}, a redirect, which is not followed: queries go to no other address than yours")
        if status == 404:
            raise LLMError(
                f"{where}: no model '{self.config.model}' (see {MODEL}), or the address does not end in /v1"
            ) from None
        self._refusals += 1
        if not self._answered and self._refusals > _REFUSALS:
            form = self.config.response_format
            raise LLMError(
                f"{where} to the first questions: does it know response_format {form}? There are json_schema and "
                "json_object"
            ) from None
        raise AnswerRefusedError(f"refused by the server: status {status}") from None

    def _connected(self) -> "AsyncOpenAI":
        if self._client is None:
            with from_extra("llm"):
                from openai import AsyncOpenAI, DefaultAsyncHttpxClient

            # Local servers need no key, but the client insists on one; retries are ours, since they count as calls.
            self._client = AsyncOpenAI(
                base_url=self.config.base_url,
                api_key=os.environ.get(API_KEY) or "none",
                max_retries=0,
                timeout=self.config.timeout,
                # No compression: a few bytes could become any number.
                default_headers={"Accept-Encoding": "identity"},
                http_client=DefaultAsyncHttpxClient(
                    follow_redirects=False, event_hooks={"response": [bounded_async(_MOST_BYTES, _malformed)]}
                ),
            )
        return self._client

    @property
    def calls_left(self) -> int | None:
        """Calls that the budget still allows; None for any number."""
        most = self.config.max_calls
        return None if most is None else max(most - self.usage.calls, 0)

    def _check_budget(self) -> None:
        config, usage = self.config, self.usage
        if config.max_calls is not None and usage.calls >= config.max_calls:
            raise BudgetSpent(f"the budget of {config.max_calls:,} calls is spent")
        if config.max_tokens is not None and usage.tokens >= config.max_tokens:
            raise BudgetSpent(f"the budget of {config.max_tokens:,} tokens is spent")

    def _count(self, answer: Any) -> None:
        used = answer.get("usage")
        if used is None:
            return
        tokens_in, tokens_out = (int(used.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        self.usage.tokens_in += tokens_in
        self.usage.tokens_out += tokens_out
        self.usage.cost += (tokens_in * self.config.price_in + tokens_out * self.config.price_out) / 1e6


@dataclass(frozen=True)
class _PassingFailure:
    """A failure that may pass."""

    reason: str
    retry_after: float = 0.0


def _malformed(reason: str) -> ThoughtError:
    return ThoughtError(f"malformed answer: {reason}")


def json_object(content: str) -> dict[str, Any]:
    """The JSON object that an untrusted answer is.

    Raises:
        ThoughtError: it is something else, too long, or holds text that no file can.
    """
    content = _THINKING.sub("", content)
    if len(content) > _LONGEST_ANSWER:
        raise ThoughtError(f"malformed answer: longer than {_LONGEST_ANSWER:,} characters")
    try:
        answer = json.loads(content)
        json.dumps(answer, ensure_ascii=False).encode()  # escapes can spell text that no file and no cache can hold
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise ThoughtError(f"malformed answer: not JSON ({reason})") from None
    if not isinstance(answer, dict):
        raise ThoughtError("malformed answer: not a JSON object")
    return answer


def offered_keywords(answer: Mapping[str, Any]) -> list[str]:
    """The texts of an answer that is a list of keywords and nothing else.

    Raises:
        ThoughtError: it is something else.
    """
    found = answer.get("keywords")
    if set(answer) != {"keywords"} or not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ThoughtError('malformed answer: not {"keywords": [texts]}')
    return found


def _seconds(header: str | None) -> float:
    """The delay of a Retry-After header; 0 for none and for dates."""
    try:
        seconds = float(header or 0.0)
    except ValueError:
        return 0.0
    return seconds if 0.0 <= seconds < float("inf") else 0.0
