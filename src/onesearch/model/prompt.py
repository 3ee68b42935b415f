"""From requests to the tokens and vectors that the model reads (docs/method.md, section 3).

::

    uid | q | SID_q | Seq_q | Seq_short | items most clicked for q | profile [| kw: teacher only]     tokens
    query vector | Seq_long as N_M vectors                                                            soft tokens
    Seq_short, with item_tokens: row | evidence                                                       item tokens

:meth:`PromptInputs.from_requests` looks every text of the requests up once and keeps integer arrays; the
:class:`PromptBuilder` then turns any rows of them into a :class:`PromptBatch` without a loop over requests. A missing
part (anonymous shopper, no history, empty query) is absent from the token sequence, its mark included.

Differences from the paper:

1. The items most clicked for the query fill missing history, as in the paper, and are a prompt part of their own for
   every shopper (``fill: always``; ``missing`` is the paper's form).
2. The query's dense vector enters as one soft token beside its words (``query_vector``).
3. The relevant-search stream of Seq_long holds the clicks whose query has a cosine of at least 0.5 with this one; the
   paper names the stream, not its rule.
4. A teacher's head row is fused with its keywords as KHQE fuses vectors; the paper gives keywords as text alone.
5. An item may enter as one token, its head row, instead of the five of its SID (``item_tokens: row``).
6. What cheap searches find for the request may stand in the prompt (``evidence``, :mod:`onesearch.model.evidence`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onesearch.common.layered_table import LayeredTable
from onesearch.model.behaviour_sequences import uid_codes
from onesearch.model.evidence import EVIDENCE_NUMBERS
from onesearch.model.featurizer import TextFeatures
from onesearch.model.model_settings import PromptSettings
from onesearch.model.prompt_batch import ItemTokens, PromptBatch
from onesearch.model.prompt_inputs import Floats, Ints, PromptInputs, known_rows
from onesearch.model.token_vocabulary import PAD, TokenVocabulary

_RECENT_QUERY_TOKENS, _KEYWORD_TOKENS = 6, 4  # subwords kept of each recent query, of each keyword
_PROFILE_TOKENS = 8
_RELEVANT_COSINE = 0.5
RQ_LAYERS = 3  # of a SID; Seq_long reads their centroids, never those of the OPQ parts
_ROWS_AT_ONCE = 1 << 14  # bounds the token arrays that are alive while lengths are counted


def longest_prompt(config: PromptSettings, levels: int) -> int:
    """Tokens of the longest prompt that the settings allow, the item tokens among them; without Seq_long's vectors.

    ``levels``: codes of a SID. A part has a mark before it.
    """
    parts = [
        1,  # the task
        config.uid * (1 + 2 * levels),
        1 + config.query_tokens,
        config.query_sid * (1 + levels),
        bool(config.recent_queries) * (1 + config.recent_queries * _RECENT_QUERY_TOKENS),
        config.profile * (1 + _PROFILE_TOKENS),
        config.think,
        config.query_vector * 1,
    ]
    # Items: of the history, then those most clicked for the query; evidence.
    if config.short:
        parts.append(1 + config.short * levels if config.item_tokens == "sid" else config.short)
    if config.fill == "always" and config.clicked_for_query:
        parts.append(1 + config.clicked_for_query * levels)
    if config.evidence.any:
        each = config.evidence
        parts.append(min(each.clicked + each.lexical + each.nearest + each.together, each.most))
    return sum(parts)


def fill_history(history: Ints, filler: Ints, width: int) -> Ints:
    """The last ``width`` items of each history, missing ones filled from ``filler``; newest (best) last.

    Shapes: ``history`` [n, C] and ``filler`` [n, E], right-aligned, -1 for missing; result [n, width].
    """
    both = _left_padded(np.concatenate([filler, history], 1), width)
    # A stable sort of the validity flags moves all real items to the right and keeps their order.
    order = np.argsort(both >= 0, axis=1, kind="stable")
    return np.take_along_axis(both, order, 1)[:, both.shape[1] - width :]


def pack_tokens(parts: Sequence[Ints]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Join parts [n, w_j] whose gaps are -1 into left-aligned tokens [n, S] and their mask [n, S]."""
    wide = np.concatenate(parts, 1)
    gap = wide < 0
    # a stable sort moves gaps to the right and keeps the order of tokens
    order = np.argsort(gap, axis=1, kind="stable")
    length = int((~gap).sum(1).max(initial=1))
    tokens = np.take_along_axis(wide, order, 1)[:, :length].astype(np.int64)
    mask = tokens >= 0
    # A prompt with nothing to say still needs one visible token for attention to be defined.
    mask[:, 0] = True
    return np.where(tokens >= 0, tokens, PAD), mask


def _left_padded(numbers: Ints, width: int) -> Ints:
    """Missing entries added on the left up to ``width`` of them."""
    return np.pad(numbers, ((0, 0), (max(width - numbers.shape[1], 0), 0)), constant_values=-1)


def _mean_known(table: Floats, numbers: Ints) -> Floats:
    """The mean of the rows of ``table`` [T, d] over each line of ``numbers`` [n, K], -1 for none: [n, d]."""
    count = (numbers >= 0).sum(1, keepdims=True)
    return np.asarray(known_rows(table, numbers).sum(1) / np.maximum(count, 1), np.float32)


def _unit(rows: Floats) -> Floats:
    """Rows of length one; zero stays zero."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)


class PromptBuilder:
    """The collator: rows of :class:`PromptInputs` to a batch; holds the SIDs and head rows of all items."""

    def __init__(
        self,
        vocabulary: TokenVocabulary,
        config: PromptSettings,
        item_sids: NDArray[np.integer] | LayeredTable,
        item_head_rows: Tensor | LayeredTable | None = None,
    ) -> None:
        """Hold the tables of N items: ``item_sids`` int32 [N, L], ``item_head_rows`` float32 [N, R].

        Raises:
            ValueError: items enter by their head rows, and there are none.
        """
        if config.has_item_tokens and item_head_rows is None:
            raise ValueError("item tokens and evidence need the items' head rows")
        self.vocabulary = vocabulary
        self.config = config
        self._head_rows = item_head_rows
        if not isinstance(item_sids, LayeredTable):
            item_sids = LayeredTable.over(torch.from_numpy(np.ascontiguousarray(item_sids, np.int32)))
        self._item_sids = item_sids

    # -- the three kinds of prompts ------------------------------------------------------------------------------

    def search_prompt(
        self,
        inputs: PromptInputs,
        rows: NDArray[np.integer],
        task: str = "task:search",
        keywords: bool = False,
        query_text: bool = True,
    ) -> PromptBatch:
        """The full input of docs/method.md, section 3, for the given rows of ``inputs``.

        Args:
            inputs: the requests.
            rows: which of them, [B].
            task: the mark that the prompt begins with.
            keywords: the teacher's form (docs/method.md (6.6)). It reads the keywords as text and their mean vector at
                their mark; its head row is the unit sum of the query's head row and the unit mean of theirs, which is
                keyword fusion with both parts of one length: the item head starts from that row, so a teacher points
                at the items of the keywords before it is trained.
            query_text: without it the query is given as its SID alone: no subwords, no vector.

        Raises:
            ValueError: keywords are asked for and the inputs have none.
        """
        # the student's parts are the teacher's, too
        texts, query = inputs.texts, inputs.query[rows]
        parts = self._search_parts(inputs, rows, task, query_text)
        if not keywords:
            parts.append(np.full((len(rows), self.config.think), self.vocabulary.mark("think"), np.int32))
            known = query if query_text else np.full(len(rows), -1, np.int32)
            batch = self._batch(parts, texts, known, self._long_codes(inputs, rows))
            batch.items = self._item_tokens(inputs, rows)
            return batch
        if inputs.keywords is None:
            raise ValueError("these inputs hold no keywords; make them with 'keywords'")
        # teacher: keywords [B, K] as text behind all else, as a mean vector, and in the head row
        numbers = inputs.keywords[rows]
        parts.append(self._marked("kw", self._text(texts, numbers, _KEYWORD_TOKENS)))
        batch = self._batch(parts, texts, query, self._long_codes(inputs, rows))
        batch.items = self._item_tokens(inputs, rows)
        batch.keyword_vectors = torch.from_numpy(_mean_known(texts.vectors, numbers))
        fused = _unit(batch.query_head_rows.numpy() + _unit(_mean_known(texts.head_rows, numbers)))
        batch.query_head_rows = torch.from_numpy(fused)
        return batch

    def text_prompt(
        self, texts: TextFeatures, numbers: NDArray[np.integer], task: str, with_sid: bool = False
    ) -> PromptBatch:
        """A text alone (query or title) behind a task mark, with its dense vector; optionally with its SID."""
        query = numbers.astype(np.int32)
        parts = [self._task(task, len(query)), self._marked("q", self._text(texts, query, self.config.query_tokens))]
        if with_sid and self.config.query_sid:
            parts.append(self._marked("sid_q", self._query_sid(texts, query)))
        return self._batch(parts, texts, query, None)

    def sid_prompt(self, sids: NDArray[np.integer], task: str, width: int, row_dim: int) -> PromptBatch:
        """A semantic ID alone [n, L] behind a task mark; no dense vector (zeros of the given widths)."""
        n = len(sids)
        tokens, mask = pack_tokens([self._task(task, n), self.vocabulary.sid_tokens(sids)])
        return PromptBatch(
            torch.from_numpy(tokens), torch.from_numpy(mask), torch.zeros(n, width), torch.zeros(n, row_dim), None
        )

    def search_lengths(self, inputs: PromptInputs) -> NDArray[np.int64]:
        """Tokens of the search prompt of each request, int64 [n], at least 1."""
        out = np.zeros(len(inputs), np.int64)
        for start in range(0, len(out), _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(out)))
            for part in self._search_parts(inputs, rows, "task:search"):
                out[rows] += (part >= 0).sum(1)
        return np.maximum(out + self.config.think, 1)

    # -- parts: int32 [n, w], -1 where nothing is --------------------------------------------------------------------

    def _search_parts(
        self, inputs: PromptInputs, rows: NDArray[np.integer], task: str, query_text: bool = True
    ) -> list[Ints]:
        """The parts of the search prompt in their order."""
        config, texts, query = self.config, inputs.texts, inputs.query[rows]
        # Missing history is filled with the items most clicked for the query, so that a new shopper has a uid as well.
        clicked_for_query = inputs.clicked_for_query[rows]
        filler = clicked_for_query if config.fill != "none" else clicked_for_query[:, :0]
        short = fill_history(inputs.clicked[rows], filler, config.short)
        orders = fill_history(inputs.ordered[rows], filler, max(config.short, 1))
        parts = [self._task(task, len(rows))]
        if config.uid:
            parts.append(self._marked("uid", np.concatenate([self._uid(short), self._uid(orders)], 1)))
        # The query: its subwords, its SID, the shopper's recent queries.
        if query_text:
            parts.append(self._marked("q", self._text(texts, query, config.query_tokens)))
        if config.query_sid or not query_text:
            parts.append(self._marked("sid_q", self._query_sid(texts, query)))
        if config.recent_queries:
            parts.append(self._marked("seq_q", self._text(texts, inputs.recent[rows], _RECENT_QUERY_TOKENS)))
        # Items as the SIDs they have in the index: recent clicks, then those most clicked for the query.
        if config.short and config.item_tokens == "sid":
            parts.append(self._marked("short", self._items(short)))
        if config.fill == "always" and clicked_for_query.shape[1]:
            parts.append(self._marked("clicked_for_q", self._items(clicked_for_query)))
        if config.profile:
            parts.append(self._marked("profile", self._text(texts, inputs.profile[rows], _PROFILE_TOKENS)))
        return parts

    def _task(self, name: str, n: int) -> Ints:
        return np.full((n, 1), self.vocabulary.mark(name), np.int32)

    def _marked(self, name: str, part: Ints) -> Ints:
        """A part behind its mark; a prompt without the part has no mark either."""
        mark = np.where((part >= 0).any(1), self.vocabulary.mark(name), -1).astype(np.int32)
        return np.concatenate([mark[:, None], part], 1)

    def _text(self, texts: TextFeatures, numbers: Ints, limit: int) -> Ints:
        """The first ``limit`` subwords of the texts ``numbers`` [n] or [n, k], side by side: [n, k · limit]."""
        if len(texts):
            known = texts.tokens.select(np.maximum(numbers.ravel(), 0)).padded(limit, newest=False)
            tokens = np.where(numbers.reshape(-1, 1) >= 0, known, -1).astype(np.int32)
        else:
            tokens = np.full((numbers.size, limit), -1, np.int32)
        return tokens.reshape(len(numbers), limit * (numbers.shape[1] if numbers.ndim > 1 else 1))

    def _sids(self, item_rows: Ints) -> Ints:
        """SIDs of items, int32 [*item_rows.shape, L]; -1 for missing ones."""
        if not len(self._item_sids):
            return np.full((*item_rows.shape, self.vocabulary.levels), -1, np.int32)
        found = self._item_sids.take(np.maximum(item_rows, 0))
        return np.where(item_rows[..., None] >= 0, found, -1).astype(np.int32)

    def _items(self, item_rows: Ints) -> Ints:
        return self.vocabulary.sid_tokens(self._sids(item_rows)).reshape(len(item_rows), -1)

    def _query_sid(self, texts: TextFeatures, query: Ints) -> Ints:
        return self.vocabulary.sid_tokens(known_rows(texts.sids, query, -1))

    def _uid(self, item_rows: Ints) -> Ints:
        return self.vocabulary.sid_tokens(uid_codes(self._sids(item_rows)))

    # -- what is no token ----------------------------------------------------------------------------------------

    def _long_codes(self, inputs: PromptInputs, rows: NDArray[np.integer]) -> Tensor:
        """Codes [n, 3, C, layers] of the streams of Seq_long: clicks, orders, clicks relevant to the query."""
        clicked, ordered = inputs.clicked[rows], inputs.ordered[rows]
        width = max(clicked.shape[1], ordered.shape[1])
        clicked, ordered = _left_padded(clicked, width), _left_padded(ordered, width)
        # A click is relevant if the query it was made for is near this one; a missing query has a zero vector.
        query_vectors = known_rows(inputs.texts.vectors, inputs.query[rows])
        click_vectors = known_rows(inputs.texts.vectors, _left_padded(inputs.clicked_query[rows], width))
        cosine = np.einsum("nd,ncd->nc", query_vectors, click_vectors)
        relevant = np.where(cosine >= _RELEVANT_COSINE, clicked, -1)
        streams = np.stack([clicked, ordered, relevant], 1)
        return torch.from_numpy(self._sids(streams)[..., :RQ_LAYERS].astype(np.int64))

    def _item_tokens(self, inputs: PromptInputs, rows: NDArray[np.integer]) -> ItemTokens | None:
        """The items that enter as one token each; None where there can be none."""
        config = self.config
        if self._head_rows is None or not config.has_item_tokens:
            return None
        # The history as in Seq_short, [n, H], then the evidence, [n, E].
        history = np.full((len(rows), 0), -1, np.int32)
        if config.item_tokens == "row" and config.short:
            filler = inputs.clicked_for_query[rows] if config.fill != "none" else history
            history = fill_history(inputs.clicked[rows], filler, config.short)
        items, numbers = history, np.zeros((len(rows), 0, len(EVIDENCE_NUMBERS)), np.float32)
        if config.evidence.any and inputs.evidence is not None:
            found = inputs.evidence(rows)
            items, numbers = np.concatenate([history, found.items], 1), found.numbers
        number = torch.from_numpy(items.astype(np.int64))
        known = self._head_rows[number.clamp(min=0).to(self._head_rows.device)].cpu()
        return ItemTokens(number, known * (number >= 0).unsqueeze(-1), torch.from_numpy(numbers))

    def _batch(self, parts: Sequence[Ints], texts: TextFeatures, query: Ints, long_codes: Tensor | None) -> PromptBatch:
        """Token parts with the dense vector and the head row of each query (zero where there is none)."""
        tokens, mask = pack_tokens(parts)
        vectors, head_rows = known_rows(texts.vectors, query), known_rows(texts.head_rows, query)
        if not self.config.query_vector:
            vectors = np.zeros_like(vectors)
        return PromptBatch(
            torch.from_numpy(tokens),
            torch.from_numpy(mask),
            torch.from_numpy(vectors.astype(np.float32)),
            torch.from_numpy(head_rows.astype(np.float32)),
            long_codes,
        )
