"""From requests to the tokens and vectors the model reads (specification section 3).

``prepare`` looks every text of the requests up once and keeps integer columns; ``PromptBuilder.search_prompt`` then
turns any rows of those columns into a batch without a loop over requests. Missing parts (anonymous shopper, no history,
empty query) are simply absent from the token sequence, or filled as the specification says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.requests import Requests
from onesearch.model.behaviour_sequences import uid_codes
from onesearch.model.featurizer import TextTable
from onesearch.model.model_settings import PromptSettings
from onesearch.model.token_vocabulary import PAD, TokenVocabulary

Ints = NDArray[np.int32]
_KEYWORDS = 8  # of a thought, at most (specification section 4)
_CHUNK = 1 << 14  # rows whose prompts are laid out at a time


@dataclass(frozen=True)
class PromptInputs:
    """Requests whose texts are numbers of a :class:`TextTable`; -1 means missing everywhere.

    Shapes: ``query`` [n], ``profile`` [n], ``recent`` [n, Q], ``clicked`` and ``clicked_query`` [n, C], ``ordered``
    [n, O], ``evidence`` [n, E] (items most clicked for the query, the most clicked one last), ``keywords`` [n, K] (what
    was thought of the query; None where nobody thinks, as in serving).
    """

    texts: TextTable
    query: Ints
    profile: Ints
    recent: Ints
    clicked: Ints
    clicked_query: Ints
    ordered: Ints
    evidence: Ints
    keywords: Ints | None = None

    def __len__(self) -> int:
        return len(self.query)


@dataclass
class PromptBatch:
    """One batch of model input.

    Shapes: ``tokens`` int64 [B, S] (ids of the vocabulary, padded on the right), ``mask`` bool [B, S];
    ``query_vectors`` float32 [B, d_e] and ``query_rows`` float32 [B, R] (zero where there is no query); ``long_codes``
    int64 [B, 3, C, layers], -1 for missing, or None for prompts without soft tokens; ``keyword_vectors`` float32
    [B, d_e], the mean vector of the keywords (zero where there is none), or None for prompts without keywords.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    query_vectors: torch.Tensor
    query_rows: torch.Tensor
    long_codes: torch.Tensor | None
    keyword_vectors: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> "PromptBatch":
        """The batch on another device."""
        return PromptBatch(
            self.tokens.to(device),
            self.mask.to(device),
            self.query_vectors.to(device),
            self.query_rows.to(device),
            None if self.long_codes is None else self.long_codes.to(device),
            None if self.keyword_vectors is None else self.keyword_vectors.to(device),
        )

    def __len__(self) -> int:
        return len(self.tokens)


def stacked(batches: Sequence[PromptBatch]) -> PromptBatch:
    """Several batches of the same form as one, padded to the longest."""
    width = max(batch.tokens.shape[1] for batch in batches)

    def wide(tensor: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(tensor, (0, width - tensor.shape[1]))

    long = [batch.long_codes for batch in batches if batch.long_codes is not None]
    if len(long) not in (0, len(batches)):
        raise ValueError("prompts with and without long behaviour cannot share a batch")
    some = next((batch.keyword_vectors for batch in batches if batch.keyword_vectors is not None), None)
    keywords = None
    if some is not None:
        blank = [some.new_zeros(len(batch), some.shape[1]) for batch in batches]
        given = [batch.keyword_vectors for batch in batches]
        keywords = torch.cat([none if known is None else known for known, none in zip(given, blank, strict=True)])
    return PromptBatch(
        torch.cat([wide(batch.tokens) for batch in batches]),
        torch.cat([wide(batch.mask) for batch in batches]),
        torch.cat([batch.query_vectors for batch in batches]),
        torch.cat([batch.query_rows for batch in batches]),
        torch.cat(long) if long else None,
        keywords,
    )


def prepare(
    requests: Requests,
    table: Callable[[Sequence[str]], TextTable],
    config: PromptSettings,
    evidence: Ints | None = None,
    keywords: Sequence[Sequence[str]] | None = None,
) -> PromptInputs:
    """Number the texts of the requests and compute their features once per distinct text.

    ``evidence`` int32 [n, E] gives the items most clicked for each query, best first (training counts only; for
    training rows with the current page view left out). ``keywords`` are those of each request's query: for a teacher's
    input, never for serving.
    """
    n = len(requests)
    recent = [row[-config.recent_queries :] if config.recent_queries else () for row in requests.recent_queries]
    profiles = requests.profile if config.profile else [""] * n
    long = max(config.long, config.short)
    none = np.full((n, 0), -1, np.int32)
    clicked_query = requests.clicked_queries[:, -long:] if long else none
    # The requests' table of texts may be that of a whole log: only what these requests clicked for is looked at.
    used = np.unique(clicked_query[clicked_query >= 0])
    of_used = [requests.query_texts[i] for i in used.tolist()]
    wanted = [*requests.query, *profiles, *(text for row in recent for text in row), *of_used]
    thoughts = keywords or []
    wanted += [text for row in thoughts for text in row]
    distinct = list(dict.fromkeys(text for text in wanted if text.strip()))
    number = {text: i for i, text in enumerate(distinct)}

    def numbers(texts: Sequence[str]) -> Ints:
        return np.fromiter((number.get(text, -1) for text in texts), np.int32, len(texts))

    def numbers_of_keywords() -> Ints:
        return Ragged.from_lists([numbers(row).tolist() for row in thoughts]).padded(_KEYWORDS, newest=False)

    recent_numbers = Ragged.from_lengths(
        numbers([text for row in recent for text in row]), np.fromiter(map(len, recent), np.int64, n)
    ).padded(config.recent_queries)
    of_clicks = np.append(numbers(of_used), -1).astype(np.int32)  # the last entry answers for 'none'
    place = np.where(clicked_query >= 0, np.searchsorted(used, clicked_query), len(used))
    return PromptInputs(
        table(distinct),
        numbers(requests.query),
        numbers(profiles),
        recent_numbers,
        requests.clicked[:, -long:] if long else none,
        of_clicks[place],
        requests.ordered[:, -long:] if long else none,
        none if evidence is None or config.fill == "none" else evidence[:, : config.evidence][:, ::-1],
        None if keywords is None else numbers_of_keywords(),
    )


def fill_missing(history: Ints, filler: Ints, width: int) -> Ints:
    """The last ``width`` items of each history, missing slots filled from ``filler``; newest (best) last.

    Shapes: ``history`` [n, C] and ``filler`` [n, E], right-aligned, -1 for missing; result [n, width].
    """
    both = np.concatenate([filler, history], 1)
    valid = both >= 0
    # A stable sort of the validity flags moves all real items to the right and keeps their order.
    order = np.argsort(valid, axis=1, kind="stable")
    packed = np.take_along_axis(both, order, 1)
    if packed.shape[1] < width:
        packed = np.pad(packed, ((0, 0), (width - packed.shape[1], 0)), constant_values=-1)
    return packed[:, packed.shape[1] - width :] if width else packed[:, :0]


def _means(table: NDArray[np.float32], numbers: Ints) -> NDArray[np.float32]:
    """The mean row of ``table`` [T, d] over each line of ``numbers`` [n, K], -1 for none; zero where there is none."""
    there = numbers >= 0
    rows = table[np.maximum(numbers, 0)] * there[:, :, None]
    return np.asarray(rows.sum(1) / np.maximum(there.sum(1, keepdims=True), 1), np.float32)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length one; zero stays zero."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)


def _widen(rows: Ints, width: int) -> Ints:
    """Missing entries added on the left up to ``width`` columns."""
    return np.pad(rows, ((0, 0), (width - rows.shape[1], 0)), constant_values=-1)


def pack_tokens(parts: Sequence[Ints]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Join parts [n, w_j] whose gaps are -1 into left-aligned token rows; returns tokens [n, S] and mask [n, S]."""
    wide = np.concatenate(parts, 1)
    gap = wide < 0
    order = np.argsort(gap, axis=1, kind="stable")
    length = int((~gap).sum(1).max(initial=1))
    tokens = np.take_along_axis(wide, order, 1)[:, : max(length, 1)].astype(np.int64)
    mask = tokens >= 0
    # A row with nothing to say still needs one visible token for attention to be defined.
    mask[:, 0] = True
    return np.where(tokens >= 0, tokens, PAD), mask


class PromptBuilder:
    """Builds batches from columns; holds the item SIDs that behaviour is written with."""

    def __init__(self, vocabulary: TokenVocabulary, config: PromptSettings, item_sids: NDArray[np.integer]) -> None:
        self.vocabulary = vocabulary
        self.config = config
        none = np.full((1, vocabulary.levels), -1)
        self._sids = np.concatenate([np.asarray(item_sids), none]).astype(np.int32)  # row -1 is 'missing'
        self._sid_tokens = vocabulary.sid_tokens(self._sids)

    def _marked(self, name: str, part: Ints) -> Ints:
        """A part behind its mark; rows without the part have no mark either."""
        present = (part >= 0).any(1) if part.shape[1] else np.zeros(len(part), bool)
        mark = np.where(present, self.vocabulary.mark(name), -1).astype(np.int32)
        return np.concatenate([mark[:, None], part], 1)

    def _text(self, texts: TextTable, numbers: Ints, limit: int) -> Ints:
        known = texts.tokens.select(np.maximum(numbers, 0)).padded(limit, newest=False) if len(texts) else None
        if known is None:
            return np.full((len(numbers), limit), -1, np.int32)
        return np.where(numbers[:, None] >= 0, known, -1).astype(np.int32)

    def _items(self, rows: Ints) -> Ints:
        return self._sid_tokens[rows].reshape(len(rows), -1)

    def _query_sid(self, texts: TextTable, numbers: Ints) -> Ints:
        sids = np.where(numbers[:, None] >= 0, texts.sids[np.maximum(numbers, 0)], -1) if len(texts) else None
        if sids is None:
            sids = np.full((len(numbers), self.vocabulary.levels), -1)
        return self.vocabulary.sid_tokens(sids)

    def _uid(self, short: Ints, long: Ints) -> Ints:
        codes = [uid_codes(self._sids[items]) if items.shape[1] else None for items in (short, long)]
        none = np.full((len(short), self.vocabulary.levels), -1, np.int32)
        return np.concatenate([none if c is None else self.vocabulary.sid_tokens(c) for c in codes], 1)

    def search_prompt(
        self,
        columns: PromptInputs,
        rows: NDArray[np.integer],
        task: str = "task:search",
        keywords: bool = False,
        query_text: bool = True,
    ) -> PromptBatch:
        """The full input of section 3 for the given rows of the columns; with ``keywords`` the teacher's form.

        The teacher reads the keywords as text, their mean vector at their mark, and as its query row the unit sum of
        the query's row and the unit mean of theirs, which is keyword fusion (section 2) with both parts of one length:
        the item head starts from that row, so a teacher points at the items of the keywords before it is trained.
        Without ``query_text`` the query is given as its SID alone: no subwords, no vector.

        Raises:
            ValueError: keywords are asked for and the columns have none.
        """
        parts = self._search_parts(columns, rows, task, query_text)
        if not keywords:
            if self.config.think:
                parts.append(np.full((len(rows), self.config.think), self.vocabulary.mark("think"), np.int32))
            tokens, mask = pack_tokens(parts)
            query = columns.query[rows] if query_text else np.full(len(rows), -1, np.int32)
            return self._batch(tokens, mask, columns.texts, query, self._long_codes(columns, rows))
        if columns.keywords is None:
            raise ValueError("these columns hold no keywords; prepare them with 'keywords'")
        numbers = columns.keywords[rows]
        words = [self._text(columns.texts, numbers[:, j], self.config.keyword_tokens) for j in range(numbers.shape[1])]
        tokens, mask = pack_tokens([*parts, self._marked("kw", np.concatenate(words, 1))])
        batch = self._batch(tokens, mask, columns.texts, columns.query[rows], self._long_codes(columns, rows))
        batch.keyword_vectors = torch.from_numpy(_means(columns.texts.vectors, numbers))
        fused = _unit(batch.query_rows.numpy() + _unit(_means(columns.texts.rows, numbers)))
        batch.query_rows = torch.from_numpy(fused)
        return batch

    def search_lengths(self, columns: PromptInputs) -> NDArray[np.int64]:
        """Tokens of the search prompt of each row, int64 [n], at least 1."""
        out = np.zeros(len(columns), np.int64)
        for start in range(0, len(out), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(out)))
            for part in self._search_parts(columns, rows, "task:search"):
                out[rows] += (part >= 0).sum(1)
        return np.maximum(out + self.config.think, 1)

    def _search_parts(
        self, columns: PromptInputs, rows: NDArray[np.integer], task: str, query_text: bool = True
    ) -> list[Ints]:
        """Token rows [n, w] in the order of the prompt, -1 where nothing is."""
        config, texts = self.config, columns.texts
        query = columns.query[rows]
        evidence = columns.evidence[rows]
        filler = evidence if config.fill != "none" else evidence[:, :0]
        short = fill_missing(columns.clicked[rows], filler, config.short)
        orders = fill_missing(columns.ordered[rows], filler, max(config.short, 1))
        n = len(rows)
        parts: list[Ints] = [np.full((n, 1), self.vocabulary.mark(task), np.int32)]
        if config.uid:
            parts.append(self._marked("uid", self._uid(short, orders)))
        if query_text:
            parts.append(self._marked("q", self._text(texts, query, config.query_tokens)))
        if config.query_sid or not query_text:
            parts.append(self._marked("sid_q", self._query_sid(texts, query)))
        if config.recent_queries:
            recent = columns.recent[rows]
            seen = [self._text(texts, recent[:, j], config.recent_query_tokens) for j in range(recent.shape[1])]
            parts.append(self._marked("seq_q", np.concatenate(seen, 1)))
        if config.short:
            parts.append(self._marked("short", self._items(short)))
        if config.fill == "always" and evidence.shape[1]:
            parts.append(self._marked("clicked_for_q", self._items(evidence)))
        if config.profile:
            parts.append(self._marked("profile", self._text(texts, columns.profile[rows], 8)))
        return parts

    def text_prompt(
        self, texts: TextTable, numbers: NDArray[np.integer], task: str, with_sid: bool = False
    ) -> PromptBatch:
        """A text alone (query or title) behind a task mark, with its dense vector; optionally with its SID."""
        of = numbers.astype(np.int32)
        parts = [np.full((len(of), 1), self.vocabulary.mark(task), np.int32)]
        parts.append(self._marked("q", self._text(texts, of, self.config.query_tokens)))
        if with_sid and self.config.query_sid:
            parts.append(self._marked("sid_q", self._query_sid(texts, of)))
        tokens, mask = pack_tokens(parts)
        return self._batch(tokens, mask, texts, of, None)

    def sid_prompt(self, sids: NDArray[np.integer], task: str, width: int, row_dim: int) -> PromptBatch:
        """A semantic ID alone [n, L] behind a task mark; no dense vector (zeros of the given widths)."""
        parts = [np.full((len(sids), 1), self.vocabulary.mark(task), np.int32), self.vocabulary.sid_tokens(sids)]
        tokens, mask = pack_tokens(parts)
        n = len(sids)
        return PromptBatch(
            torch.from_numpy(tokens), torch.from_numpy(mask), torch.zeros(n, width), torch.zeros(n, row_dim), None
        )

    def _long_codes(self, columns: PromptInputs, rows: NDArray[np.integer]) -> torch.Tensor:
        """Codes of the three streams of Seq_long: clicks, orders, past clicks relevant to the query."""
        clicked, ordered = columns.clicked[rows], columns.ordered[rows]
        width = max(clicked.shape[1], ordered.shape[1])
        clicked, ordered = _widen(clicked, width), _widen(ordered, width)
        of_click = _widen(columns.clicked_query[rows], width)
        relevant = np.where(self._relevant(columns, columns.query[rows], of_click), clicked, -1)
        streams = np.stack([clicked, ordered, relevant], 1)
        return torch.from_numpy(self._sids[:, :3][streams].astype(np.int64))

    def _relevant(self, columns: PromptInputs, query: Ints, of_click: Ints) -> NDArray[np.bool_]:
        """Past clicks whose query has cosine of at least 0.5 with this one."""
        vectors = columns.texts.vectors
        if not len(vectors) or not of_click.shape[1]:
            return np.zeros(of_click.shape, bool)
        cosine = np.einsum("nd,ncd->nc", vectors[np.maximum(query, 0)], vectors[np.maximum(of_click, 0)])
        return np.asarray((query[:, None] >= 0) & (of_click >= 0) & (cosine >= 0.5))

    def _batch(
        self,
        tokens: NDArray[np.int64],
        mask: NDArray[np.bool_],
        texts: TextTable,
        numbers: Ints,
        long_codes: torch.Tensor | None,
    ) -> PromptBatch:
        known = (numbers >= 0)[:, None]
        safe = np.maximum(numbers, 0)
        if len(texts):
            vectors, rows = np.asarray(texts.vectors[safe] * known), np.asarray(texts.rows[safe] * known)
        else:
            vectors = np.zeros((len(numbers), texts.vectors.shape[1]), np.float32)
            rows = np.zeros((len(numbers), texts.rows.shape[1]), np.float32)
        if not self.config.query_vector:
            vectors = np.zeros_like(vectors)
        return PromptBatch(
            torch.from_numpy(tokens),
            torch.from_numpy(mask),
            torch.from_numpy(vectors.astype(np.float32)),
            torch.from_numpy(rows.astype(np.float32)),
            long_codes,
        )
