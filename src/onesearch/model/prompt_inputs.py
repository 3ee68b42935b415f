"""Requests as numbers: every distinct text is looked up once, so that a batch of any of them is a matter of indices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.requests import Requests
from onesearch.model.evidence import FindEvidence
from onesearch.model.featurizer import TextFeatures
from onesearch.model.model_settings import PromptSettings

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
_Number = TypeVar("_Number", np.int32, np.float32)
_KEYWORDS = 8  # of a thought, at most (docs/method.md, section 4)


@dataclass(frozen=True)
class PromptInputs:
    """Requests whose texts are numbers of :class:`TextFeatures`; -1 means missing everywhere.

    Shapes: ``query`` [n], ``profile`` [n], ``recent`` [n, Q] recent queries, ``clicked`` and ``clicked_query`` [n, C],
    ``ordered`` [n, O], ``clicked_for_query`` [n, E] (items most clicked for the query, the most clicked one last),
    ``keywords`` [n, K] (of the query's thought; None where nobody thinks, as in serving). ``evidence`` finds the
    evidence items of any of the requests.
    """

    texts: TextFeatures
    query: Ints
    profile: Ints
    recent: Ints
    clicked: Ints
    clicked_query: Ints
    ordered: Ints
    clicked_for_query: Ints
    keywords: Ints | None = None
    evidence: FindEvidence | None = None

    def __len__(self) -> int:
        return len(self.query)

    def with_evidence(self, evidence: FindEvidence) -> "PromptInputs":
        """The same requests with what finds their evidence."""
        return replace(self, evidence=evidence)

    def query_head_rows(self, rows: NDArray[np.integer] | None = None) -> Floats:
        """The head row of each query, or of those of the requests ``rows``; zero without a query, float32 [n, R]."""
        return known_rows(self.texts.head_rows, self.query if rows is None else self.query[rows])

    @classmethod
    def from_requests(
        cls,
        requests: Requests,
        featurize: Callable[[Sequence[str]], TextFeatures],
        config: PromptSettings,
        clicked_for_query: Ints | None = None,
        keywords: Sequence[Sequence[str]] | None = None,
        evidence: FindEvidence | None = None,
    ) -> "PromptInputs":
        """Number the texts of the requests and compute their features once per distinct text.

        Args:
            requests: n requests.
            featurize: features of distinct texts, such as :meth:`Featurizer.text_features`.
            config: which parts are read and how much of each.
            clicked_for_query: int32 [n, E], the items most clicked for each query, best first (training counts only;
                for training requests with the current page view left out).
            keywords: those of each request's query: for a teacher's input, never for serving.
            evidence: finds the evidence items of requests by their numbers.
        """
        n, absent = len(requests), np.full((len(requests), 0), -1, np.int32)
        recent = [texts[-config.recent_queries :] if config.recent_queries else () for texts in requests.recent_queries]
        recent_texts = [text for texts in recent for text in texts]
        profiles = requests.profile if config.profile else [""] * n
        long = max(config.long, config.short)
        clicked_query = requests.clicked_queries[:, -long:] if long else absent
        # The requests' table of texts may be that of a whole log: only what these requests clicked for is looked up.
        used = np.unique(clicked_query[clicked_query >= 0])
        used_texts = [requests.query_texts[i] for i in used.tolist()]
        # Every distinct text gets a number, in the order of its first appearance.
        keyword_texts = [text for texts in keywords or [] for text in texts]
        wanted = [*requests.query, *profiles, *recent_texts, *used_texts, *keyword_texts]
        distinct = list(dict.fromkeys(text for text in wanted if text.strip()))
        # blank texts have no number: they are missing
        number = {text: i for i, text in enumerate(distinct)}

        def numbers(texts: Sequence[str]) -> Ints:
            return np.fromiter((number.get(text, -1) for text in texts), np.int32, len(texts))

        def padded(texts: Sequence[Sequence[str]], flat: Sequence[str], width: int, newest: bool) -> Ints:
            lengths = np.fromiter(map(len, texts), np.int64, len(texts))
            return Ragged.from_lengths(numbers(flat), lengths).padded(width, newest=newest)

        clicked_query_numbers = np.append(numbers(used_texts), -1).astype(np.int32)  # the last one answers for 'none'
        place = np.where(clicked_query >= 0, np.searchsorted(used, clicked_query), len(used))
        best_last = absent
        if clicked_for_query is not None and config.fill != "none":
            best_last = clicked_for_query[:, : config.clicked_for_query][:, ::-1]
        return cls(
            featurize(distinct),
            query=numbers(requests.query),
            profile=numbers(profiles),
            recent=padded(recent, recent_texts, config.recent_queries, newest=True),
            clicked=requests.clicked[:, -long:] if long else absent,
            clicked_query=clicked_query_numbers[place],
            ordered=requests.ordered[:, -long:] if long else absent,
            clicked_for_query=best_last,
            keywords=None if keywords is None else padded(keywords, keyword_texts, _KEYWORDS, newest=False),
            evidence=evidence,
        )


def known_rows(table: NDArray[_Number], numbers: Ints, missing: int = 0) -> NDArray[_Number]:
    """``table[numbers]`` of a table [T, d], ``missing`` where the number is -1 (or the table empty): [..., d]."""
    out = np.full((*numbers.shape, table.shape[1]), missing, table.dtype)
    known = numbers >= 0
    out[known] = table[numbers[known]]
    return out
