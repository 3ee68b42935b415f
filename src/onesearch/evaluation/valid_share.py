"""The share of SIDs that exist when the generator decodes without the constraint (specification section 8)."""

import numpy as np
import torch

from onesearch.data.requests import Requests
from onesearch.model.prompt import prepare
from onesearch.search.engine import SearchEngine


@torch.inference_mode()
def valid_sid_share(engine: SearchEngine, requests: Requests, most: int, batch: int = 64) -> float:
    """Greedy decoding over whole codebooks of at most ``most`` requests; how many SIDs belong to an item, 0 to 1."""
    requests = requests.select(np.arange(min(most, len(requests))))
    if not len(requests):
        return float("nan")
    model, snapshot = engine.generator, engine.snapshot
    evidence = engine.evidence.statistics.most_clicked(requests.query, max(model.config.prompt.evidence, 1))
    columns = prepare(requests, engine.featurizer.table, model.config.prompt, evidence)
    found = []
    for rows in np.split(np.arange(len(requests)), range(batch, len(requests), batch)):
        memory = model.encode(snapshot.builder.search_prompt(columns, rows).to(model.begin.device))
        state = model.start(memory, 1)
        codes: list[torch.Tensor] = []
        embeds = model.token_embedding(-1, torch.zeros(len(rows), 1, dtype=torch.long))
        for level in range(model.levels):
            hidden = model.step(state, embeds, None)
            codes.append(model.codebook_logits(level, hidden).argmax(-1))
            nodes = snapshot.index.locate(torch.stack(codes, -1)[:, 0])
            vectors = snapshot.index.vectors(level, nodes.clamp(min=0)).unsqueeze(1) if model.anchored else None
            if vectors is not None:
                # A prefix that does not exist has no node, so the next step sees its code alone.
                vectors = vectors * (nodes >= 0)[:, None, None]
            embeds = model.token_embedding(level, codes[-1], vectors)
        found.append((snapshot.index.locate(torch.stack(codes, -1)[:, 0]) >= 0).float())
    return float(torch.cat(found).mean())
