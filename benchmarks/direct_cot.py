"""A generator's own keywords: greedy decoding of the first CoT task, for the "direct CoT" comparison."""

from collections.abc import Sequence

import numpy as np
import torch

from onesearch.model.featurizer import Featurizer
from onesearch.model.generator import Generator
from onesearch.model.prompt import PromptBuilder
from onesearch.model.token_vocabulary import BEGIN, END

_SEPARATOR = ","


@torch.inference_mode()
def write_keywords(
    generator: Generator,
    featurizer: Featurizer,
    builder: PromptBuilder,
    queries: Sequence[str],
    limit: int = 32,
    batch: int = 64,
) -> list[tuple[str, ...]]:
    """The keywords that the model writes for each query, [n], cut at ``limit`` subwords; each keyword once.

    This is what thinking aloud before the SID costs: one decoder step per subword, for every request.
    """
    table = featurizer.text_features(queries)
    out: list[tuple[str, ...]] = []
    for rows in np.split(np.arange(len(queries)), range(batch, len(queries), batch)):
        memory = generator.encode(builder.text_prompt(table, rows, "task:query_to_keywords").to(generator.begin.device))
        state = generator.start(memory, 1)
        token = torch.full((len(rows), 1), BEGIN, device=generator.begin.device)
        written: list[torch.Tensor] = []
        done = torch.zeros(len(rows), dtype=torch.bool, device=token.device)
        for _ in range(limit):
            hidden = generator.step(state, generator.embed(token), None)
            token = generator.text_logits(hidden).argmax(-1)
            done |= token[:, 0] == END
            written.append(token.masked_fill(done[:, None], END))
            if bool(done.all()):
                break
        for ids in torch.cat(written, 1).tolist():
            text = builder.vocabulary.text([i for i in ids if i != END])
            words = (word.strip() for word in text.split(_SEPARATOR))
            out.append(tuple(dict.fromkeys(word for word in words if word)))
    return out
