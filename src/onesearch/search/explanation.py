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
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.path_scoring import score_paths
from onesearch.search.ranking_weights import RankingWeights
from onesearch.search.results import Explanation, Part, Step
from onesearch.search.rules import Touching

_LOOKED_AT = 2000  # items below a node that say what it stands for


def explain(
    search: CandidateSearch,
    weights: RankingWeights,
    request: Requests,
    scope: Scope,
    rows: Sequence[int],
    first: Collection[int],
    touching: Touching,
) -> list[Explanation]:
    """Why the items ``rows`` are results of a single request: it is searched once more.

    ``first`` are rows of items that come first because the query is their id or a rule pins them; ``touching`` the
    rules that touch the search.
    """
    snapshot, zero = scope.snapshot, np.zeros(1, np.int64)
    # The same candidates again.
    facts = search.request_facts(request, snapshot)
    found = search.find_for(facts, zero, scope)
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
    out = []
    for place, row in enumerate(rows):
        column = np.flatnonzero(found.items[0] == row)
        by = [name for name, items in channels.items() if (items == row).any()]
        if len(column) and found.generated[0, column[0]]:
            by.insert(0, "beams")
        parts = parts_of(found.features, weight_of, int(column[0])) if len(column) and row not in first else ()
        chances = None if probabilities is None else probabilities[place]
        pins = [pin.name for pin in touching.pins if items["item_id"][place] in pin.items]
        boosts = [name for name, holds in groups if holds[place]]
        rules = (*touching.rewriting, *pins, *boosts)
        out.append(Explanation(parts, tuple(by), steps_of(snapshot, row, chances), rules))
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


def steps_of(snapshot: Snapshot, row: int, probabilities: NDArray[np.float32] | None) -> tuple[Step, ...]:
    """The way down to an item, with the model's probabilities [L] of its tokens."""
    index = snapshot.index
    nodes = index.path(torch.tensor([row], device=index.device))[0]
    steps = []
    for level, token in enumerate(sid_tokens(snapshot.sid(row))):
        # Items below: ranges of positions, of which some may be gone.
        ranges = index.ranges(level, nodes[level : level + 1])
        positions = torch.cat([torch.arange(int(a), int(b), device=index.device) for a, b in ranges])
        if (there := index.present(positions)) is not None:
            positions = positions[there]
        some = positions[:: max(1, len(positions) // _LOOKED_AT)]
        columns = snapshot.filters.columns_of(index.item_rows(some).cpu().numpy())
        paths = columns.paths.counted(1)
        chance = None if probabilities is None else float(probabilities[level])
        steps.append(Step(token, chance, len(positions), paths[0][0] if paths else ""))
    return tuple(steps)
