"""The generator: prompts in, semantic IDs out. A backbone between the prompt's embeddings and three output heads.

The **item head** scores the legal children of a trie node and writes everything whose target is an item; the
**codebook head** scores a level's whole codebook, for SIDs that need not be an item's; the **text head** scores
subwords. First come the heads, then the model: its input, its decoding as the beam search asks for it, its files.
(5.4) to (5.9) of docs/method.md.

Differences from the paper, whose model has a learned row for each code and nothing else:

1. A child's logit is taken with the mean of the items below it (``anchored``): new items need no training.
2. That logit carries the log of how many items lie below, the size term of an exact sum over them (``ItemHead.bias``).
3. The same pass gives an item score, one more vector times the item's head row (``item_score``).
4. A query's head row may be fused with learned rows of its subwords, which stand in for a teacher's keywords
   (``word_rows``).
5. The softmax runs over the legal children only, in training as well (``legal_softmax``, in `search/path_scoring.py`).
   Without it the codebook head is what is trained, so it is what decodes, masked to the legal children, and
   ``anchored`` has no say.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from onesearch.common.artefact import read_json, write_json
from onesearch.model.backbones import DecodeState, PromptMemory, build_backbone
from onesearch.model.behaviour_sequences import LongBehaviour
from onesearch.model.evidence import EVIDENCE_NUMBERS, EvidenceMemory, EvidencePointer, products_with, zero_linear
from onesearch.model.model_settings import ModelSettings
from onesearch.model.prompt_batch import ItemTokens, PromptBatch
from onesearch.model.token_vocabulary import MARKS

# Keys of a transformers configuration by which it fetches what computes: attention kernels, model code, number formats.
_CODE = ("implementation", "kernel", "auto_map", "quantization")


class ItemHead(nn.Module):
    """Per level ``s = α_l · query's head row + W_l h`` (5.4); a child has the logit ``s · head row + b_l · log count``.

    ``W_l`` starts at zero and ``α`` at the inverse temperature of dense search, so that an untrained head ranks nodes
    by the query's product with their mean item, and learns what that misses. The log count is the size term of the
    exact ``log Σ exp`` over the items below a node. Nothing is learned per node.
    """

    def __init__(self, d_model: int, row_dim: int, levels: int, scale: float) -> None:
        super().__init__()
        self.project = nn.ModuleList(zero_linear(d_model, row_dim) for _ in range(levels))
        self.log_scale = nn.Parameter(torch.full((levels,), float(scale)).log())
        self.count_weight = nn.Parameter(torch.ones(levels))

    def state(self, level: int, hidden: Tensor, query_head_rows: Tensor) -> Tensor:
        """``hidden`` [..., d] and ``query_head_rows`` [..., R] (broadcast) to the state [..., R]."""
        return torch.as_tensor(self.project[level](hidden)) + self.log_scale[level].exp() * query_head_rows

    def bias(self, level: int, counts: Tensor) -> Tensor:
        """The size term of nodes with ``counts`` items below, same shape."""
        return self.count_weight[level] * counts.to(self.count_weight.dtype).log()


class ItemScore(nn.Module):
    """The item score ``s = (α · query's head row + W h_1) · item's head row`` (5.8); h_1 reads only the begin token."""

    def __init__(self, d_model: int, row_dim: int, scale: float) -> None:
        super().__init__()
        self.project = zero_linear(d_model, row_dim)
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())

    def forward(self, hidden: Tensor, query_head_rows: Tensor) -> Tensor:
        """``hidden`` [..., d] and ``query_head_rows`` [..., R] to the vector that multiplies item rows, [..., R]."""
        return torch.as_tensor(self.project(hidden)) + self.log_scale.exp() * query_head_rows


@dataclass(frozen=True)
class Sizes:
    """What the model's tables must fit.

    Attributes:
        text: number of subwords.
        codebooks: number of codes of each SID level.
        vector: d_e, the width of the text encoder.
        row: R, the width of head rows.
        scale: inverse temperature that the encoder's cosines were trained with, where the item head starts.
        items: number of training items, for the learned vectors of ``item_memory``.
    """

    text: int
    codebooks: tuple[int, ...]
    vector: int
    row: int
    scale: float = 20.0
    items: int = 0


@dataclass
class GeneratorMemory:
    """What one encoder pass leaves for the decoder: the prompts' keys and values, the queries' head rows [B, R], and
    the evidence where prompts have some.
    """

    prompts: PromptMemory
    query_head_rows: Tensor
    evidence: EvidenceMemory | None = None


@dataclass(frozen=True)
class Asked:
    """What the item score is made of: ``state · head row of i + what the pointer told of i + recalling · memory of i``.

    Shapes: ``state`` [B, R]; ``evidence`` int64 [B, E], -1 for none, and what the pointer ``told`` of it, float32
    [B, E], both None without evidence; ``recalling`` [B, d], None without item memory.
    """

    state: Tensor
    evidence: Tensor | None = None
    told: Tensor | None = None
    recalling: Tensor | None = None

    def told_of(self, items: Tensor) -> Tensor:
        """What the pointer told of ``items`` int64 [B, C]; 0 for all that are no evidence."""
        if self.evidence is None or self.told is None:
            return torch.zeros(items.shape, device=items.device)
        same = (items.unsqueeze(2) == self.evidence.unsqueeze(1)) & (items >= 0).unsqueeze(2)
        return (same * self.told.unsqueeze(1)).sum(2)


class Generator(nn.Module):
    """Text + behaviour in, semantic IDs out.

    ::

        memory = encode(prompts)                    # [query vector | Seq_long | tokens] through the encoder, once
        x = begin token
        for level l:
            h = decoder state of x;   state = α_l · query's head row + W_l h
            logit of a legal child c = state · head row of c + b_l · log(items below c)
            x = embedding of the code chosen + from_row(head row of the node chosen)

    Args:
        config: size and form.
        sizes: table sizes, from the vocabulary, encoder, quantizer and index.
        centroids: the RQ layers' centroids, [K_l, d_e] each, constants of the long-behaviour module.
    """

    def __init__(self, config: ModelSettings, sizes: Sizes, centroids: Sequence[Tensor]) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        self.backbone = build_backbone(config.backbone)
        d = self.backbone.d_model
        self.levels = len(sizes.codebooks)
        # input: subwords in one table, marks and SID tokens in the other; what is no token enters by linear maps
        self.text_embedding = nn.Embedding(sizes.text, d)
        self.extra_embedding = nn.Embedding(len(MARKS) + sum(sizes.codebooks), d)
        for table in (self.text_embedding, self.extra_embedding):
            nn.init.normal_(table.weight, std=d**-0.5)
        if config.word_rows:
            # zero at the start, so that an untrained model is dense search (query_head_rows); the last column is the
            # gate's
            self.word_rows = nn.Embedding.from_pretrained(torch.zeros(sizes.text, sizes.row + 1), freeze=False)
            self.word_bias = nn.Parameter(torch.zeros(()))
        self.query_token = nn.Linear(sizes.vector, d)
        self.long = LongBehaviour(centroids, d, config.long_vectors)
        self.begin = nn.Parameter(torch.randn(d) * d**-0.5)
        self.from_row = nn.Linear(sizes.row, d, bias=False)
        nn.init.zeros_(self.from_row.weight)
        # items that enter as one token each: of the history by their place, of the evidence with their numbers
        if config.prompt.has_item_tokens:
            self.item_token = nn.Linear(sizes.row, d)
            self.item_place = nn.Embedding(config.prompt.short + 1, d)
            self.item_numbers = nn.Linear(len(EVIDENCE_NUMBERS), d)
            nn.init.normal_(self.item_place.weight, std=d**-0.5)
        if config.item_memory:
            # Zero at the start and for items that are newer than training.
            self.item_memory = nn.Embedding.from_pretrained(torch.zeros(sizes.items, d), freeze=False)
            self.memory_query = nn.Linear(d, d)
        if config.prompt.evidence.any:
            self.pointer = EvidencePointer(d, self.backbone.memory_width, self.levels)
        # output heads
        self.item_head = ItemHead(d, sizes.row, self.levels, sizes.scale)
        self.item_score = ItemScore(d, sizes.row, sizes.scale)
        # codebook and text head: a transform (one per level) before the tied embeddings
        self.code_transform = nn.ModuleList(nn.Linear(d, d) for _ in range(self.levels))
        self.text_transform = nn.Linear(d, d)
        if config.free_codes:
            self.free_transform = nn.ModuleList(zero_linear(d, d) for _ in range(self.levels))

    # -- input ----------------------------------------------------------------------------------------------------

    def embed(self, tokens: Tensor) -> Tensor:
        """Vocabulary ids int64 [...] to embeddings [..., d]."""
        n = self.sizes.text
        # ids below n are subwords; both tables are read at a safe place and the right one is taken
        text = tokens < n
        read = F.embedding(tokens.clamp(max=n - 1), self.text_embedding.weight)
        extra = F.embedding((tokens - n).clamp(min=0), self.extra_embedding.weight)
        return torch.where(text.unsqueeze(-1), read, extra)

    def encode(self, batch: PromptBatch) -> GeneratorMemory:
        """One encoder pass over a batch of prompts: soft tokens in front, then the tokens, [B, soft + S, d]."""
        embeds, mask = self.embed(batch.tokens), batch.mask
        soft = []
        if self.config.prompt.query_vector:
            soft.append(self.query_token(batch.query_vectors.to(self.query_token.weight.dtype)).unsqueeze(1))
        if batch.long_codes is not None and self.config.prompt.long:
            soft.append(self.long(batch.long_codes))
        if batch.keyword_vectors is not None:
            # at the keywords' mark, so that no token of a prompt without keywords moves, and read by the same map as
            # the query's vector: a teacher has no weight of its own
            read = self.query_token(batch.keyword_vectors.to(self.query_token.weight.dtype))
            at = batch.tokens == self.sizes.text + MARKS.index("kw")
            embeds = embeds + at.unsqueeze(-1) * read.unsqueeze(1).to(embeds.dtype)
        if soft:
            front = torch.cat(soft, 1)
            embeds = torch.cat([front.to(embeds.dtype), embeds], 1)
            mask = torch.cat([mask.new_ones(front.shape[:2]), mask], 1)
        if batch.items is None:
            return GeneratorMemory(self.backbone.encode(embeds, mask), self.query_head_rows(batch))
        # Item tokens come last; then all real tokens move to the left, as every backbone wants them.
        embeds = torch.cat([embeds, self.item_embeds(batch.items).to(embeds.dtype)], 1)
        mask = torch.cat([mask, batch.items.items >= 0], 1)
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(mask.sum(1).max())]
        embeds = embeds.gather(1, order.unsqueeze(-1).expand(-1, -1, embeds.shape[2]))
        prompts = self.backbone.encode(embeds, mask.gather(1, order))
        return GeneratorMemory(prompts, self.query_head_rows(batch), self._evidence(batch.items, prompts, mask))

    def item_embeds(self, tokens: ItemTokens) -> Tensor:
        """Embeddings of item tokens, [B, H + E, d]: head row plus place in the history, or plus the numbers."""
        h, e = tokens.history, tokens.numbers.shape[1]
        # The newest item of a history has place 1; evidence has place 0.
        place = torch.cat([torch.arange(h, 0, -1), torch.zeros(e, dtype=torch.long)]).to(tokens.items.device)
        dtype = self.item_token.weight.dtype
        told = F.pad(self.item_numbers(tokens.numbers.to(dtype)), (0, 0, h, 0))
        embeds = torch.as_tensor(self.item_token(tokens.head_rows.to(dtype)) + self.item_place(place) + told)
        return embeds + self.remembered(tokens.items) if self.config.item_memory else embeds

    def remembered(self, items: Tensor) -> Tensor:
        """The learned vectors of items, int64 [...] to [..., d]; zero for -1 and for items newer than training."""
        known = (items >= 0) & (items < self.sizes.items)
        return F.embedding(items * known, self.item_memory.weight) * known.unsqueeze(-1)

    def _evidence(self, tokens: ItemTokens, prompts: PromptMemory, mask: Tensor) -> EvidenceMemory | None:
        """Keys of the evidence from what the encoder gives the decoder's last layer; ``mask`` before the move left."""
        h, e = tokens.history, tokens.numbers.shape[1]
        if not e or not self.config.prompt.evidence.any:
            return None
        at = (mask.cumsum(1) - 1)[:, -e:].clamp(min=0)  # where each evidence token went, [B, E]
        values = prompts.values[-1].transpose(1, 2).flatten(2)  # [B, S, width]
        read = values.gather(1, at.unsqueeze(-1).expand(-1, -1, values.shape[2]))
        return EvidenceMemory(tokens.items[:, h:], self.pointer.key(read), tokens.numbers, tokens.head_rows[:, h:])

    def query_head_rows(self, batch: PromptBatch) -> Tensor:
        """Head rows of the queries [B, R], which the item head and the item score start from.

        The encoder's; fused with what the query's words stand for where their gate is open, as a teacher's row is fused
        with its keywords. What is learnt from clicks leaves the words' rows alone: nearly every query with a word of
        need is its own, and rows that follow its few clicks make new queries worse (measured).
        """
        if not self.config.word_rows:
            return batch.query_head_rows
        with torch.no_grad():
            rows, gate = self.words(batch)
            fused = F.normalize(batch.query_head_rows + F.normalize(rows, dim=1), dim=1)
            return torch.where((gate > 0).unsqueeze(1), fused, batch.query_head_rows)

    def words(self, batch: PromptBatch) -> tuple[Tensor, Tensor]:
        """What the query's subwords stand for, [B, R], and the logit that they stand for anything, [B].

        Both are sums of learned numbers of each subword. Zero beside keywords, which say in a teacher's input what the
        words' rows shall come to say in the student's, and before training.
        """
        tokens, n = batch.tokens, self.sizes.text
        place = torch.arange(tokens.shape[1], device=tokens.device)
        # the query's subwords are those whose last mark before them is the query's
        last = torch.where(tokens >= n, place, -1).cummax(1).values
        after = tokens.gather(1, last.clamp(min=0)) == n + MARKS.index("q")
        of_query = after & (last >= 0) & (tokens < n) & batch.mask
        if batch.keyword_vectors is not None:
            of_query &= ~(tokens == n + MARKS.index("kw")).any(1, keepdim=True)
        # sums over the query's subwords [B, R + 1], the gate in the last column
        some = of_query.any(1)
        found = (F.embedding(tokens.clamp(max=n - 1), self.word_rows.weight) * of_query.unsqueeze(-1)).sum(1)
        return found[:, :-1], found[:, -1] + self.word_bias * some

    def token_embedding(self, level: int, codes: Tensor | None, vectors: Tensor | None = None) -> Tensor:
        """Decoder input after a token of ``level``; level -1 is the begin-of-SID token (``codes`` gives the shape).

        Shapes: ``codes`` int64 [...], ``vectors`` [..., R] rows of the nodes just chosen (anchored form only).
        """
        if level < 0:
            shape = () if codes is None else codes.shape
            return self.begin.expand(*shape, -1)
        if codes is None:
            raise ValueError("codes are needed for every level but -1")
        embeds = F.embedding(codes + self._code_offset(level), self.extra_embedding.weight)
        if self.anchored and vectors is not None:
            embeds = embeds + self.from_row(vectors.to(embeds.dtype))
        return embeds

    def _code_offset(self, level: int) -> int:
        return len(MARKS) + sum(self.sizes.codebooks[:level])

    # -- decoding (the interface of the beam search) -----------------------------------------------------------------

    @property
    def anchored(self) -> bool:
        """Whether SIDs of items are scored on node-mean rows, by the item head; else on codebook rows.

        A softmax over whole codebooks has no rows of nodes, which are legal by their nature: what it trains is the
        codebook head, and a head that nothing trains must not decode.
        """
        return self.config.anchored and self.config.legal_softmax

    def start(self, memory: GeneratorMemory, width: int) -> DecodeState:
        """Begin incremental decoding with ``width`` beams per request."""
        return self.backbone.start(memory.prompts, width)

    def step(self, state: DecodeState, embeds: Tensor, parents: Tensor | None) -> Tensor:
        """Advance the beams by one token: embeds [B, W, d], parents int64 [B, W] or None; returns hidden [B, W, d]."""
        return self.backbone.step(state, embeds, parents)

    def item_state(self, level: int, hidden: Tensor, memory: GeneratorMemory, owner: Tensor | None = None) -> Tensor:
        """State of the item head: [B, W, d] (or [M, d] with ``owner`` [M] naming each row's request) to [..., R]."""
        rows = memory.query_head_rows.to(hidden.dtype)
        rows = rows[owner] if owner is not None else rows.reshape(len(rows), *[1] * (hidden.dim() - 2), -1)
        return self.item_head.state(level, hidden, rows)

    def node_bias(self, level: int, counts: Tensor) -> Tensor:
        """Size term of nodes with ``counts`` items below them."""
        return self.item_head.bias(level, counts)

    def free_logits(self, level: int, hidden: Tensor) -> Tensor | None:
        """A learned logit of each code, which new items share with old ones: [..., d] to [..., K_l]; None without."""
        if not self.config.free_codes:
            return None
        start = self._code_offset(level)
        table = self.extra_embedding.weight[start : start + self.sizes.codebooks[level]]
        return F.linear(self.free_transform[level](hidden), table)

    def evidence_logits(
        self, level: int, hidden: Tensor, state: Tensor, evidence: EvidenceMemory, owner: Tensor | None = None
    ) -> Tensor:
        """Logits of evidence items themselves, [n, E], from ``hidden`` [n, d] and ``state`` [n, R] of n paths.

        ``owner`` int64 [n] is the request of each path, whose evidence counts; None for one path a request.
        """
        own = products_with(state, evidence.head_rows.to(state.dtype), owner)
        return torch.as_tensor(own + self.pointer(level, hidden, evidence.keys, evidence.numbers, owner))

    def codebook_logits(self, level: int, hidden: Tensor) -> Tensor:
        """Logits over the whole codebook of a level: [..., d] to [..., K_l]."""
        start = self._code_offset(level)
        table = self.extra_embedding.weight[start : start + self.sizes.codebooks[level]]
        return F.linear(self.code_transform[level](hidden), table)

    def text_logits(self, hidden: Tensor, subwords: Tensor | None = None) -> Tensor:
        """Logits over the subwords, or those of ``subwords`` int64 [W]: [..., d] to [..., V] or [..., W]."""
        table = self.text_embedding.weight
        return F.linear(self.text_transform(hidden), table if subwords is None else F.embedding(subwords, table))

    def ask(self, memory: GeneratorMemory) -> "Asked":
        """What the item score is made of, for the B requests of ``memory``."""
        n = len(memory.query_head_rows)
        owner = torch.arange(n, device=memory.query_head_rows.device)
        hidden = self.backbone.decode(memory.prompts, self.begin.expand(n, 1, -1), owner)[:, 0]
        state, evidence = self.score_state(hidden, memory, owner), memory.evidence
        told = None if evidence is None else self.pointer(-1, hidden, evidence.keys, evidence.numbers).float()
        return Asked(
            state,
            None if evidence is None else evidence.items,
            told,
            self.memory_query(hidden) if self.config.item_memory else None,
        )

    def item_scores(self, asked: "Asked", items: Tensor, head_rows: Tensor) -> Tensor:
        """The item score of ``items`` int64 [B, C], -1 for none, with their ``head_rows`` [B, C, R]; float32 [B, C]."""
        scores = torch.einsum("br,bcr->bc", asked.state.float(), head_rows.float()) + asked.told_of(items)
        if asked.recalling is not None:
            scores = scores + torch.einsum("bd,bcd->bc", asked.recalling, self.remembered(items)).float()
        return scores

    def score_state(self, hidden: Tensor, memory: GeneratorMemory, owner: Tensor) -> Tensor:
        """The item score's vector from decoder states before the first SID token: [M, d] to [M, R]."""
        out: Tensor = self.item_score(hidden, memory.query_head_rows[owner].to(hidden.dtype))
        return out

    # -- storage -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``model.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, str(folder / "model.safetensors"))
        config = self.config.updated(backbone=self.backbone.config.model_dump())
        write_json(folder / "model.json", {"config": config.model_dump(mode="json"), "sizes": asdict(self.sizes)})

    @classmethod
    def load(cls, folder: Path) -> "Generator":
        """Read what :meth:`save` wrote; the backbone's architecture comes from the file, not from a hub.

        Raises:
            ValueError: the two files do not belong together. Nothing larger than the weights is built to find that out.
        """
        about = read_json(folder / "model.json")
        tensors = load_file(str(folder / "model.safetensors"))
        sizes = Sizes(**{**about["sizes"], "codebooks": tuple(about["sizes"]["codebooks"])})
        config = ModelSettings.model_validate(about["config"])
        architecture = config.backbone.architecture
        if architecture is None:
            raise ValueError(
                f"{folder / 'model.json'} names no architecture, and no other model is loaded in its place"
            )
        if code := [key for key in architecture if any(word in key for word in _CODE)]:
            raise ValueError(f"{folder / 'model.json'}: {code[0]!r} may have code loaded from elsewhere: remove it")
        if any("layer" in key and isinstance(n, int) and n > len(tensors) for key, n in architecture.items()):
            raise ValueError(f"{folder / 'model.json'} has more layers than {folder / 'model.safetensors'} has weights")
        # centroids are part of the weights; the module only needs their shapes to be built
        centroids = [tensors[f"long.centroids_{layer}"] for layer in range(3)]
        # first without memory, to compare shapes
        try:
            with torch.device("meta"):
                shapes = {name: tensor.shape for name, tensor in cls(config, sizes, centroids).state_dict().items()}
        except (RuntimeError, TypeError, ArithmeticError) as error:
            raise ValueError(f"{folder / 'model.json'} describes no model: {error}") from None
        if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
            raise ValueError(
                f"{folder / 'model.json'} describes another model than {folder / 'model.safetensors'} holds"
            )
        model = cls(config, sizes, centroids)
        # the weights are those of the file, mapped into memory: processes that load it share what none of them trains
        model.load_state_dict(tensors, assign=True)
        return model.eval()
