"""One batch of model input: tokens, vectors of the query and of long behaviour, item tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


@dataclass
class ItemTokens:
    """The items of a prompt that enter as one token each: those of the history, then the evidence.

    Shapes: ``items`` int64 [B, H + E] item rows, -1 for none; ``head_rows`` float32 [B, H + E, R]; ``numbers`` float32
    [B, E, F] of the evidence. In the history the newest item is last.
    """

    items: Tensor
    head_rows: Tensor
    numbers: Tensor

    @property
    def history(self) -> int:
        """H, the columns of the history."""
        return self.items.shape[1] - self.numbers.shape[1]

    def without_own_clicks(self, owner: Tensor, items: Tensor, numbers: Tensor) -> "ItemTokens":
        """The tokens with the rows of M clicked items as they were before the page view that is learnt.

        Args:
            owner: the prompt in which each was clicked, int64 [M].
            items: the clicked items, int64 [M]; any of them may be a token of that prompt, or none.
            numbers: what the click added to the last columns of its head row, float32 [M, F].
        """
        clicked, token = (self.items[owner] == items.unsqueeze(1)).nonzero(as_tuple=True)
        before = self.head_rows.clone()
        before[owner[clicked], token, -numbers.shape[1] :] -= numbers[clicked]
        return ItemTokens(self.items, before, self.numbers)

    def select(self, prompts: Tensor) -> "ItemTokens":
        """Those of the prompts int64 [b]."""
        return ItemTokens(self.items[prompts], self.head_rows[prompts], self.numbers[prompts])

    def to(self, device: torch.device | str) -> "ItemTokens":
        """The tokens on another device."""
        return ItemTokens(self.items.to(device), self.head_rows.to(device), self.numbers.to(device))

    @classmethod
    def concatenate(cls, parts: Sequence["ItemTokens"]) -> "ItemTokens":
        """Several batches as one, with as many columns of evidence as the widest has."""
        width = max(part.items.shape[1] for part in parts)
        return cls(
            torch.cat([functional.pad(part.items, (0, width - part.items.shape[1]), value=-1) for part in parts]),
            torch.cat([functional.pad(p.head_rows, (0, 0, 0, width - p.head_rows.shape[1])) for p in parts]),
            torch.cat([functional.pad(p.numbers, (0, 0, 0, width - p.items.shape[1])) for p in parts]),
        )


@dataclass
class PromptBatch:
    """One batch of model input.

    Shapes: ``tokens`` int64 [B, S] (ids of the vocabulary, padded on the right), ``mask`` bool [B, S];
    ``query_vectors`` float32 [B, d_e] and ``query_head_rows`` float32 [B, R] (zero where there is no query);
    ``long_codes`` int64 [B, 3, C, layers], -1 for missing, or None for prompts without soft tokens;
    ``keyword_vectors`` float32 [B, d_e], the mean vector of the keywords (zero where there is none), or None for
    prompts without keywords; ``items``, or None for prompts without item tokens.
    """

    tokens: Tensor
    mask: Tensor
    query_vectors: Tensor
    query_head_rows: Tensor
    long_codes: Tensor | None
    keyword_vectors: Tensor | None = None
    items: ItemTokens | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device | str) -> "PromptBatch":
        """The batch on another device."""
        return replace(self, **{name: part.to(device) for name, part in vars(self).items() if part is not None})

    @classmethod
    def concatenate(cls, batches: Sequence["PromptBatch"]) -> "PromptBatch":
        """Several batches as one, padded to the longest; a batch without keywords gets zero keyword vectors.

        Raises:
            ValueError: only some of the batches have long behaviour, or item tokens.
        """
        # soft tokens are no part that may be missing in some prompts of a batch
        long = [batch.long_codes for batch in batches if batch.long_codes is not None]
        if len(long) not in (0, len(batches)):
            raise ValueError("prompts with and without long behaviour cannot share a batch")
        items = [batch.items for batch in batches if batch.items is not None]
        if len(items) not in (0, len(batches)):
            raise ValueError("prompts with and without item tokens cannot share a batch")
        width = max(batch.tokens.shape[1] for batch in batches)

        def wide(part: Tensor) -> Tensor:
            return functional.pad(part, (0, width - part.shape[1]))

        keywords = None
        if any(batch.keyword_vectors is not None for batch in batches):
            known = [(batch.keyword_vectors, torch.zeros_like(batch.query_vectors)) for batch in batches]
            keywords = torch.cat([none if vectors is None else vectors for vectors, none in known])
        return cls(
            torch.cat([wide(batch.tokens) for batch in batches]),
            torch.cat([wide(batch.mask) for batch in batches]),
            torch.cat([batch.query_vectors for batch in batches]),
            torch.cat([batch.query_head_rows for batch in batches]),
            torch.cat(long) if long else None,
            keywords,
            ItemTokens.concatenate(items) if items else None,
        )
