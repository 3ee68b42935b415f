"""Why a result stands where it does: what made its score, and the way down to its semantic ID."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.data.records import items_frame
from onesearch.data.requests import Requests
from onesearch.encoding.sid_text import sid_tokens
from onesearch.search.candidate_search import FEWEST, CandidateSearch, Scope
from onesearch.search.candidates import Candidates
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.path_scoring import score_paths
from onesearch.search.ranking_weights import RankingWeights
from onesearch.search.results import Explanation, Part, Step
from onesearch.search.rules import Touching

_LOOKED_AT = 200  # items below a node that say what it stands for


def explain(
    search: CandidateSearch,
    weights: RankingWeights,
    request: Requests,
    scope: Scope,
    found: Candidates,
    rows: Sequence[int],
    first: Collection[int],
    touching: Touching,
) -> list[Explanation]:
    """Why the items ``rows`` are results of a single request.

    ``found`` are its candidates, as the search had them before others joined where there were few; ``first`` are rows
    of items that come first because the query is their id or a rule pins them; ``touching`` the rules that touch it.
    """
    snapshot, zero = scope.snapshot, np.zeros(1, np.int64)
    facts = search.request_facts(request, snapshot)
    if len(search.with_few(found, scope)):
        scope = replace(scope, least=FEWEST + facts.taken.shape[1])
        found = search.find_for(facts, zero, scope)
    weight_of = {name: weights.of(name, 1, found.contexts) for name in found.features}
    # Who found them, and how likely each token of theirs is.
    index = snapshot.index
    with torch.inference_mode():
        read = search.read(facts, zero, snapshot)
        channels = search.channels(facts, zero, read.evidence, read.head_rows, read.state, scope)
        probabilities = None
        if read.memory is not None and len(rows):
            paths = index.path(torch.tensor(rows, device=index.device))
            owner = torch.zeros(len(rows), dtype=torch.long, device=index.device)
            log_probs, _ = score_paths(snapshot.generator, read.memory, paths, owner, index)
            probabilities = log_probs.exp().cpu().numpy()
    # Which rules touched them: items as a table, for the groups of boosts.
    items = items_frame([snapshot.item(row) for row in rows])
    groups = [(boost.name, boost.holds(items)) for boost in touching.boosts]
    steps = steps_of(snapshot, rows, probabilities)
    out = []
    for place, row in enumerate(rows):
        column = np.flatnonzero(found.items[0] == row)
        by = [name for name, items in channels.items() if (items == row).any()]
        if len(column) and found.generated[0, column[0]]:
            by.insert(0, "beams")
        parts = parts_of(found.features, weight_of, int(column[0])) if len(column) and row not in first else ()
        pins = [pin.name for pin in touching.pins if items["item_id"][place] in pin.items]
        boosts = [name for name, holds in groups if holds[place]]
        rules = (*touching.rewriting, *pins, *boosts)
        out.append(Explanation(parts, tuple(by), steps[place], rules))
    return out


def parts_of(
    features: Mapping[str, NDArray[np.float32]], weights: Mapping[str, NDArray[np.float32]], column: int
) -> tuple[Part, ...]:
    """The parts of one candidate's score, from features [1, C] and weights [1] of a single request; 0 is left out."""
    parts = [
        Part(name, float(values[0, column]), float(weights[name][0]))
        for name, values in features.items()
        if values[0, column] and weights[name][0]
    ]
    return tuple(sorted(parts, key=lambda part: -abs(part.product)))


def steps_of(
    snapshot: Snapshot, rows: Sequence[int], probabilities: NDArray[np.float32] | None
) -> list[tuple[Step, ...]]:
    """The way down to each item, with the model's probabilities [n, L] of its tokens."""
    if not len(rows):
        return []
    paths = snapshot.index.path(torch.tensor(rows, device=snapshot.index.device)).tolist()
    # Results share their first nodes, and so do searches: each node is looked at once.
    known = snapshot.below
    nodes = dict.fromkeys((level, node) for path in paths for level, node in enumerate(path))
    known.update(_below(snapshot, [node for node in nodes if node not in known]))
    out = []
    for place, (row, path) in enumerate(zip(rows, paths, strict=True)):
        chances = [None] * len(path) if probabilities is None else probabilities[place].tolist()
        told = zip(sid_tokens(snapshot.sid(row)), chances, enumerate(path), strict=True)
        out.append(tuple(Step(token, chance, *known[node]) for token, chance, node in told))
    return out


def _below(snapshot: Snapshot, nodes: Sequence[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, str]]:
    """How many items each node (level, number) stands for, and the commonest category of some of them."""
    index, counts, some = snapshot.index, [], []
    for level, node in nodes:
        # Ranges of positions, of which some may be gone.
        ranges = index.ranges(level, torch.tensor([node], device=index.device))
        positions = torch.cat([torch.arange(int(a), int(b), device=index.device) for a, b in ranges])
        if (there := index.present(positions)) is not None:
            positions = positions[there]
        counts.append(len(positions))
        some.append(index.item_rows(positions[:: max(1, len(positions) // _LOOKED_AT)]).cpu().numpy())
    # The categories of all of them are looked up at once.
    ends = np.cumsum([len(rows) for rows in some], dtype=np.int64)
    paths = snapshot.filters.columns_of(np.concatenate([np.zeros(0, np.int64), *some])).paths
    names = [replace(paths, code=code).counted(1) for code in np.split(paths.code, ends[:-1])] if nodes else []
    best = [name[0][0] if name else "" for name in names]
    return dict(zip(nodes, zip(counts, best, strict=True), strict=True))
