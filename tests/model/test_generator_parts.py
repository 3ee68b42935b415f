"""The heads by hand, and what the encoder pass reads."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from onesearch.common.artefact import read_json, write_json
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.records import Item, PageView, items_frame, page_views_frame
from onesearch.model.generator import Generator, ItemHead, ItemScore
from onesearch.model.head_row_projection import HeadRowProjection
from onesearch.model.initialise import initialise, projection
from onesearch.model.numeric_item_features import NumericItemFeatures
from onesearch.model.token_vocabulary import MARKS
from small_models import CODEBOOKS, generator, prompts, remember


def test_the_item_heads_state_and_bias_by_hand():
    head = ItemHead(d_model=2, row_dim=3, levels=2, scale=20.0)
    hidden, row = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.0, 1.0])
    torch.testing.assert_close(head.state(0, hidden, row), 20 * row)  # untrained: dense search
    torch.testing.assert_close(head.bias(0, torch.tensor([1, 8])), torch.tensor([1.0, 8.0]).log())
    with torch.no_grad():
        head.project[1].weight.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 1]]))
        head.project[1].bias.copy_(torch.tensor([0.0, 0, 10]))
        head.log_scale.copy_(torch.tensor([1.0, 2.0]).log())
        head.count_weight.copy_(torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(head.state(1, hidden, row), torch.tensor([1 + 2 * 0.5, -2.0, -1 + 10 + 2 * 1.0]))
    torch.testing.assert_close(head.bias(1, torch.tensor([1, 4])), torch.tensor([0.0, 0.5 * np.log(4)]).float())


def test_the_item_score_by_hand():
    score = ItemScore(d_model=2, row_dim=2, scale=3.0)
    with torch.no_grad():
        score.project.weight.copy_(torch.tensor([[0.0, 1], [2, 0]]))
    state = score(torch.tensor([1.0, -1]), torch.tensor([1.0, 10]))
    torch.testing.assert_close(state, torch.tensor([-1 + 3 * 1.0, 2 + 3 * 10.0]))


def test_the_item_score_reads_the_decoder_before_the_first_token():
    model = generator()
    memory = remember(model)
    hidden = model.backbone.decode(memory.prompts, model.begin.expand(4, 1, -1), torch.arange(4))[:, 0]
    every = model.item_score(hidden, memory.query_head_rows)
    torch.testing.assert_close(model.ask(memory).state, every)
    owner = torch.tensor([2, 0, 2])
    torch.testing.assert_close(model.score_state(hidden[owner], memory, owner), every[owner])


def test_states_of_beams_and_of_targets_start_from_their_own_querys_row():
    model = generator()
    memory = remember(model)
    hidden, owner = torch.randn(4, 3, 16, dtype=torch.float64), torch.arange(4).repeat_interleave(3)
    beams, targets = model.item_state(1, hidden, memory), model.item_state(1, hidden.flatten(0, 1), memory, owner)
    torch.testing.assert_close(beams.flatten(0, 1), targets)
    expected = model.item_head.state(1, hidden[2, 1], memory.query_head_rows[2])
    torch.testing.assert_close(beams[2, 1], expected)


def test_codes_have_the_embeddings_of_their_level():
    model = generator()
    table = model.extra_embedding.weight
    for level in range(5):
        first = len(MARKS) + sum(CODEBOOKS[:level])
        codes = torch.arange(CODEBOOKS[level])
        torch.testing.assert_close(model.token_embedding(level, codes), table[first : first + CODEBOOKS[level]])
        hidden = torch.randn(2, 16, dtype=torch.float64)
        logits = model.code_transform[level](hidden) @ table[first : first + CODEBOOKS[level]].T
        torch.testing.assert_close(model.codebook_logits(level, hidden), logits)
    rows = torch.randn(3, 8, dtype=torch.float64)
    read = model.token_embedding(0, torch.tensor([1, 1, 2]), rows) - model.token_embedding(0, torch.tensor([1, 1, 2]))
    torch.testing.assert_close(read, rows @ model.from_row.weight.T)
    tokens = torch.tensor([3, 19, 20, 20 + len(MARKS)])
    torch.testing.assert_close(model.embed(tokens)[1:3], torch.stack([model.text_embedding.weight[19], table[0]]))


def test_soft_tokens_stand_in_front_and_keywords_at_their_mark():
    model, batch = generator(dtype=torch.float32), prompts(3)
    kw = 20 + MARKS.index("kw")
    batch.tokens[1, 1] = kw
    batch.keyword_vectors = torch.randn(3, 12)
    batch.long_codes = torch.randint(0, 3, (3, 3, 4, 3))
    embeds = torch.stack([model.embed(line) for line in batch.tokens])
    embeds[1, 1] += model.query_token(batch.keyword_vectors[1])
    front = torch.cat([model.query_token(batch.query_vectors)[:, None], model.long(batch.long_codes)], 1)
    mask = torch.cat([torch.ones(3, 4, dtype=torch.bool), batch.mask], 1)
    expected = model.backbone.encode(torch.cat([front, embeds], 1), mask)
    found = model.encode(batch).prompts
    assert torch.equal(found.mask, mask)
    for ours, theirs in zip(found.keys + found.values, expected.keys + expected.values, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_numeric_features_by_hand():
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "category": [["x"], ["x"], ["y"]],
            "price": [10.0, 1000.0, None],
            "title": ["", "", ""],
            "brand": [None, None, None],
            "seller": [None, None, None],
        }
    )
    views = pl.DataFrame(
        {
            "query": ["q", "q"],
            "shown": [["a", "b"], ["a"]],
            "clicked": [["a"], ["a"]],
            "ordered": [["a"], []],
        }
    )
    _, found = NumericItemFeatures.fit(items, ClickStatistics.from_page_views(views, items))
    prices = np.log([10.0, 1000.0])
    raw = np.array(
        [
            [np.log(3), np.log(2), np.log(3 / 12), prices[0], prices[0] - prices.mean(), 0],
            [0, 0, np.log(1 / 11), prices[1], prices[1] - prices.mean(), 0],
            [0, 0, np.log(1 / 10), prices.mean(), 0, 1],
        ]
    )
    expected = 0.25 * np.clip((raw - raw.mean(0)) / raw.std(0), -4, 4)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_new_items_start_as_what_is_usual_for_their_brand_category_and_seller(tmp_path):
    """Clicks of a, b, c: 2, 0, 1, d was not shown; a and b have one brand, a and c one category, c alone a seller."""
    items = items_frame(
        [
            Item("a", "", ("x", "shoes"), "Acme", 10.0),
            Item("b", "", ("y", "shoes"), "Acme", 40.0),
            Item("c", "", ("x", "shoes"), "Bolt", 20.0, seller="Cy"),
            Item("d", "", (), ""),
        ]
    )
    log = [
        PageView("1", "q", shown=("a", "b"), clicked=("a",), ordered=("a",)),
        PageView("2", "q", shown=("a", "c"), clicked=("a", "c")),
    ]
    fitted, found = NumericItemFeatures.fit(items, ClickStatistics.from_page_views(page_views_frame(log), items))
    counted = np.log([[3, 2, 3 / 12], [1, 1, 1 / 11], [2, 1, 2 / 11], [1, 1, 1 / 10]])
    mean = counted.mean(0)
    acme = 2 / 7 * ((counted[0] + counted[1]) / 2 - mean)
    shoes = 2 / 7 * ((counted[0] + counted[2]) / 2 - mean)
    sold_by_cy = 1 / 6 * (counted[2] - mean)
    new = items_frame(
        [
            Item("e", "", ("x", "shoes"), "Acme", 10.0, seller="Cy"),
            Item("f", "", ("x", "hats"), "Acme", 10.0, seller="nobody"),  # one known trait: its offset as it is
            Item("g", "", ("shoes",), "Acme Inc"),  # nothing is known
            Item("h", ""),  # no traits; that items without a brand have no clicks is nothing about this one
        ]
    )
    expected = [mean + (acme + shoes + sold_by_cy) / 3, mean + acme, mean, mean]
    fitted.save(tmp_path / "item_features.json")
    for one in (fitted, NumericItemFeatures.load(tmp_path / "item_features.json")):
        numbers = one.for_new_items(new)
        np.testing.assert_allclose(numbers[:, :3], 0.25 * (expected - mean) / counted.std(0), atol=1e-5)
    # Of the four old ones d alone was never shown; a new item has had no chance.
    shown = np.array([0.0, 0, 0, 1])
    np.testing.assert_allclose(found[:, 5], 0.25 * (shown - 0.25) / shown.std(), atol=1e-5)
    np.testing.assert_allclose(numbers[:, 5], found[0, 5])
    # Prices are their own.
    np.testing.assert_allclose(numbers[0, 3:5], found[0, 3:5], atol=1e-6)


def test_head_rows_by_hand_and_by_leading_dimensions():
    vectors = np.array([[3.0, 4, 0, 12]], np.float32) / 13
    space = HeadRowProjection.fit(vectors, row_dim=4, features=2, leading=True)
    rows = space.project_items(vectors, np.array([[7.0, 8]], np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8, 7, 8]], rtol=1e-6)
    np.testing.assert_allclose(space.project_queries(vectors), [[0.6, 0.8, 0, 0]], rtol=1e-6)
    with pytest.raises(ValueError, match="leaves no room"):
        HeadRowProjection.fit(vectors, row_dim=2, features=2)


@pytest.mark.parametrize("d_model", [4, 12])
def test_the_start_of_a_model_from_scratch_keeps_products(d_model):
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((50, 3)) @ rng.standard_normal((3, 8))).astype(np.float32)  # three true dimensions
    inside = vectors @ projection(vectors, d_model, 0)
    np.testing.assert_allclose(inside @ inside.T, vectors @ vectors.T, atol=1e-2)


def test_the_head_that_is_trained_is_the_head_that_decodes():
    """Anchored rows belong to the softmax over legal children; over whole codebooks the codebook head does both."""
    assert generator().anchored and not generator(legal_softmax=False).anchored
    assert not generator(anchored=False).anchored


class Letters:
    """An encoder that only the SID tokens and the query need here."""

    dimension = 4


@pytest.mark.parametrize("padding", [0, 7, -3])
def test_of_a_padded_pretrained_table_the_tokens_rows_are_taken(padding):
    """Released checkpoints round their tables up (Qwen3: 151,936 rows for 151,669 tokens); fewer rows are wrong."""
    model = generator()
    size, width = model.text_embedding.weight.shape
    model.backbone.pretrained_embedding = table = torch.randn(size + padding, width, dtype=torch.float64)
    vocabulary = SimpleNamespace(text_size=size, pretrained="a/model")
    vectors = np.eye(4, dtype=np.float32)
    arguments = (model, vocabulary, Letters(), SimpleNamespace(centroids=[]), vectors, 0)
    if padding < 0:
        with pytest.raises(ValueError, match=f"'a/model' embed {size - 3} tokens, but its tokenizer has {size}"):
            initialise(*arguments)
        return
    model.query_token = torch.nn.Linear(4, width, dtype=torch.float64)
    initialise(*arguments)
    torch.testing.assert_close(model.text_embedding.weight.detach(), table[:size])


@pytest.fixture(params=["bart", "gpt2", "qwen3"])
def saved(request, tmp_path):
    model = generator(request.param, dtype=torch.float32)
    model.save(tmp_path)
    return tmp_path, model


def test_a_saved_model_is_read_bit_by_bit(saved):
    folder, model = saved
    again = Generator.load(folder)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


HUGE = 10**9


def test_training_a_model_that_was_read_leaves_its_file_alone(saved):
    """Weights are mapped into memory: what is learnt is this process's own."""
    folder, model = saved
    again = Generator.load(folder)
    assert all(parameter.requires_grad for parameter in again.parameters())
    optimizer = torch.optim.SGD(again.parameters(), lr=1.0)
    for parameter in again.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for (name, before), after in zip(
        model.state_dict().items(), Generator.load(folder).state_dict().values(), strict=True
    ):
        assert torch.equal(before, after), name
    moved = [not torch.equal(one, other) for one, other in zip(again.parameters(), model.parameters(), strict=True)]
    assert all(moved)


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="this system does not say what is mapped")
def test_the_weights_of_a_model_are_mapped_and_not_copied(saved):
    folder, _ = saved
    again = Generator.load(folder)
    maps = Path("/proc/self/maps").read_text()
    mapped = [
        line.split()[0].split("-") for line in maps.splitlines() if line.endswith(str(folder / "model.safetensors"))
    ]
    ranges = [(int(begin, 16), int(end, 16)) for begin, end in mapped]
    outside = [
        name
        for name, one in again.named_parameters()
        if one.numel() and not any(begin <= one.data_ptr() < end for begin, end in ranges)
    ]
    assert not outside


def test_a_description_that_asks_for_more_than_the_weights_hold_is_refused_at_once(saved):
    """Built as described each of these would fill the memory, or load a model from elsewhere."""
    folder, _ = saved
    about = read_json(folder / "model.json")
    backbone = about["config"]["backbone"]
    told = backbone["architecture"]
    names = [name for name in told if name in GROWS and (backbone["kind"], name) != ("qwen3", GROWS[-2])]
    changes = [{"architecture": told | {name: HUGE}} for name in names]
    changes += [{"architecture": told | {name: 3000}} for name in names if "layer" in name]
    assert len(changes) >= 3
    changes += [{"architecture": None}, {"architecture": None, "pretrained": "facebook/bart-base"}]
    foreign = {"attn_implementation": "a/kernel", "_attn_implementation": "a/b:c", "auto_map": {"AutoModel": "a--b.c"}}
    changes += [{"architecture": told | {name: value}} for name, value in foreign.items()]
    for change in changes:
        wrong = about | {"config": about["config"] | {"backbone": backbone | change}}
        write_json(folder / "model.json", wrong)
        with pytest.raises(ValueError, match=r"model\.json"):
            Generator.load(folder)
    for name in ("text", "vector", "row", "items"):
        write_json(folder / "model.json", about | {"sizes": about["sizes"] | {name: HUGE}})
        if name != "items":  # without item memory there is no table of them
            with pytest.raises(ValueError, match=r"model\.json"):
                Generator.load(folder)


# Rotary positions need no table.
GROWS = (
    *("encoder_layers", "decoder_layers", "n_layer", "num_hidden_layers"),
    *("d_model", "encoder_ffn_dim", "decoder_ffn_dim", "n_embd", "n_inner", "hidden_size", "intermediate_size"),
    *("max_position_embeddings", "n_positions"),
)
