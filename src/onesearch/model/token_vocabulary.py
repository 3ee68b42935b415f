"""The tokenizer with its added tokens: one id space for all that the model reads and writes.

Ids are laid out as ``[subwords | marks | level-1 codes | ... | level-5 codes]``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from onesearch.common.artefact import read_json, write_json
from onesearch.common.ragged import Ragged

PAD, BEGIN, END, UNKNOWN = 0, 1, 2, 3
_SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]
_TOGETHER: Final = 4096  # texts that are split into subwords at once

MARKS: tuple[str, ...] = (
    "uid",
    "q",
    "sid_q",
    "seq_q",
    "short",
    "long",
    "profile",
    "clicked_for_q",
    "kw",
    "task:query_to_sid",
    "task:sid_to_query",
    "task:title_to_sid",
    "task:sid_to_title",
    "task:query_to_category",
    "task:item_to_category",
    "task:sid_to_category",
    "task:query_to_item",
    "task:item_to_query",
    "task:query_sid_to_item_sid",
    "task:item_sid_to_query_sid",
    "task:search",
    "task:query_to_keywords",
    "task:query_sid_to_keyword_sids",
    "task:user_query_to_keywords",
    "task:user_query_sid_to_keyword_sids",
    "think",
)


@dataclass(frozen=True)
class TokenVocabulary:
    """Text subwords, marks and SID tokens.

    Attributes:
        tokenizer: the subword tokenizer; pad, begin, end and unknown have ids 0 to 3.
        codebook_sizes: size of each SID level, e.g. (256, 128, 64, 256, 256).
        pretrained: name or path of a pretrained tokenizer, or None for one trained on the catalogue and queries.
    """

    tokenizer: Tokenizer
    codebook_sizes: tuple[int, ...]
    pretrained: str | None = None

    @classmethod
    def train(cls, texts: Iterable[str], size: int, codebook_sizes: Sequence[int]) -> "TokenVocabulary":
        """Train a byte-level BPE of at most ``size`` subwords on the catalogue and the training queries."""
        # byte level: every text has tokens, whatever its script
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=_SPECIALS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer, tuple(codebook_sizes))

    @classmethod
    def from_pretrained(cls, name: str, codebook_sizes: Sequence[int]) -> "TokenVocabulary":
        """The tokenizer of a pretrained backbone, by name or path (fast tokenizers only).

        Raises:
            ValueError: it has no fast version, or gaps in its ids, where marks and SID tokens would collide with text.
        """
        from transformers import AutoTokenizer

        fast = AutoTokenizer.from_pretrained(name)
        if not fast.is_fast:
            raise ValueError(f"the tokenizer of '{name}' has no fast version; choose a backbone that has one")
        tokenizer = fast.backend_tokenizer
        largest = max(tokenizer.get_vocab().values(), default=-1)
        if largest + 1 != tokenizer.get_vocab_size():
            raise ValueError(
                f"the tokenizer of '{name}' has {tokenizer.get_vocab_size():,} tokens, but ids up to {largest:,}; "
                "choose a backbone whose tokenizer numbers its tokens without gaps"
            )
        return cls(tokenizer, tuple(codebook_sizes), name)

    @property
    def text_size(self) -> int:
        """Number of subwords."""
        return int(self.tokenizer.get_vocab_size())

    @property
    def levels(self) -> int:
        """SID length L."""
        return len(self.codebook_sizes)

    @property
    def extra_size(self) -> int:
        """Number of marks and SID tokens: the rows of the second embedding table."""
        return len(MARKS) + sum(self.codebook_sizes)

    def mark(self, name: str) -> int:
        """The id of a mark such as ``"q"`` or ``"task:search"``."""
        return self.text_size + MARKS.index(name)

    @property
    def sid_offsets(self) -> NDArray[np.int64]:
        """First id of each level's codes, int64 [L]."""
        # codes of all levels stand one after another behind the marks
        before = np.concatenate([[0], np.cumsum(self.codebook_sizes)[:-1]])
        return (self.text_size + len(MARKS) + before).astype(np.int64)

    def sid_tokens(self, sids: NDArray[np.integer]) -> NDArray[np.int32]:
        """Level-local codes [..., L] to ids; rows with a negative code become -1."""
        ids = np.where(sids >= 0, sids + self.sid_offsets, -1)
        return ids.astype(np.int32)

    def tokens(self, texts: Sequence[str], limit: int) -> Ragged:
        """Subword ids of each text, at most ``limit`` each."""
        ids, lengths = [np.zeros(0, np.int32)], np.zeros(len(texts), np.int64)
        # In parts: what the tokenizer tells of a text besides its ids takes ten kilobytes.
        for begin in range(0, len(texts), _TOGETHER):
            part = list(texts[begin : begin + _TOGETHER])
            kept = [one.ids[:limit] for one in self.tokenizer.encode_batch_fast(part, add_special_tokens=False)]
            lengths[begin : begin + len(part)] = [len(one) for one in kept]
            ids.append(np.fromiter(chain.from_iterable(kept), np.int32))
        return Ragged.from_lengths(np.concatenate(ids), lengths)

    def text(self, ids: Sequence[int]) -> str:
        """Subword ids back to text."""
        return str(self.tokenizer.decode(list(ids)))

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``vocabulary.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(str(folder / "tokenizer.json"))
        about = {"codebook_sizes": self.codebook_sizes, "pretrained": self.pretrained, "marks": MARKS}
        write_json(folder / "vocabulary.json", about)

    @classmethod
    def load(cls, folder: Path) -> "TokenVocabulary":
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: it was made with other marks, so that its ids mean something else; or sizes are no sizes.
        """
        about: dict[str, Any] = read_json(folder / "vocabulary.json")
        if tuple(about.get("marks", MARKS)) != MARKS:
            raise ValueError(f"{folder} was made with other marks of a prompt; make the run again with `onesearch run`")
        sizes = about["codebook_sizes"]
        if not isinstance(sizes, list) or not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError(
                f"{folder / 'vocabulary.json'}: codebook_sizes must be whole numbers above 0, got {sizes!r}"
            )
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return cls(tokenizer, tuple(sizes), about["pretrained"])
