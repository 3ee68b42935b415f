"""Where a generator from scratch starts: in the geometry of the text encoder and of the quantizer.

A subword starts at the encoder's vector of its text, a SID token at its centroid, and the dense query vector enters by
the same projection, so that the first layers see one space.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.encoding.khqe import KHQE
from onesearch.encoding.text_encoder import TextEncoder
from onesearch.model.generator import Generator
from onesearch.model.token_vocabulary import MARKS, TokenVocabulary

Floats = NDArray[np.float32]


def projection(vectors: Floats, d_model: int, seed: int) -> Floats:
    """A linear map [d_e, d_model] that keeps products: leading PCA axes, spread over d_model where it is larger."""
    # principal axes, strongest first (eigh gives the weakest first)
    width = vectors.shape[1]
    _, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)
    leading = axes[:, ::-1]
    if d_model <= width:
        return np.ascontiguousarray(leading[:, :d_model], np.float32)
    rng = np.random.default_rng(seed)
    # a random orthonormal map into the wider space keeps products as they are
    spread, _ = np.linalg.qr(rng.normal(size=(d_model, width)))
    return np.ascontiguousarray(leading @ spread.T, np.float32)


@torch.no_grad()
def initialise(
    generator: Generator, vocabulary: TokenVocabulary, encoder: TextEncoder, khqe: KHQE, item_vectors: Floats, seed: int
) -> None:
    """Set the embedding tables in place; pretrained text embeddings are kept where the backbone brings them.

    Raises:
        ValueError: the pretrained weights have fewer rows than the tokenizer has tokens.
    """
    d = generator.backbone.d_model
    axes = projection(item_vectors, d, seed)
    pretrained = generator.backbone.pretrained_embedding
    if pretrained is not None:
        # a checkpoint's table may be padded, as all of Qwen are: the rows behind the last token mean nothing
        if len(pretrained) < vocabulary.text_size:
            raise ValueError(
                f"the weights of {vocabulary.pretrained!r} embed {len(pretrained):,} tokens, but its tokenizer has "
                f"{vocabulary.text_size:,}; take the tokenizer and the weights of one checkpoint"
            )
        generator.text_embedding.weight.copy_(pretrained[: vocabulary.text_size])
    else:
        # a subword that the encoder knows nothing of keeps its random start
        pieces = [vocabulary.text([i]) for i in range(vocabulary.text_size)]
        known = torch.from_numpy(encoder.encode(pieces) @ axes)
        seen = known.norm(dim=1, keepdim=True) > 1e-6
        generator.text_embedding.weight.copy_(torch.where(seen, known, generator.text_embedding.weight))
    # SID tokens: the centroids, each level scaled to a mean length of one
    start = len(MARKS)
    for centroids in khqe.centroids:
        table = torch.from_numpy(centroids @ axes)
        scale = table.norm(dim=1).mean().clamp(min=1e-6)
        generator.extra_embedding.weight[start : start + len(table)].copy_(table / scale)
        start += len(table)
    generator.query_token.weight.copy_(torch.from_numpy(axes.T.copy()))
    generator.query_token.bias.zero_()
