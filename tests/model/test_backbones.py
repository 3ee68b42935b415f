"""Own forward passes against transformers' own; incremental decoding against teacher forcing; shared memory."""

import copy

import pytest
import torch

from onesearch.model.attention import TargetGrid
from onesearch.model.backbones import Backbone, BackboneSettings, build_backbone

KINDS = ("bart", "gpt2", "qwen3")
D = 32


def tiny(kind: str, dropout: float = 0.0) -> Backbone:
    torch.manual_seed(0)
    config = BackboneSettings(
        kind=kind, d_model=D, heads=4, encoder_layers=2, decoder_layers=3, ffn=48, max_positions=40, dropout=dropout
    )
    backbone = build_backbone(config).eval()
    for parameter in backbone.parameters():  # biases and norms away from 0 and 1, attention away from uniform
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else parameter.data.add_(
            0.1 * torch.randn_like(parameter)
        )
    return backbone


def prompts(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    lengths = torch.tensor([7, 3, 5])
    mask = torch.arange(7) < lengths[:, None]
    return torch.randn(3, 7, D, dtype=dtype), mask


def theirs(backbone: Backbone, embeds, mask, targets):
    """Transformers' own forward; one target per prompt."""
    model = backbone.model
    if backbone.config.kind == "bart":
        return model(
            inputs_embeds=embeds, attention_mask=mask.long(), decoder_inputs_embeds=targets, use_cache=False
        ).last_hidden_state
    t = targets.shape[1]
    positions = torch.cat([torch.arange(embeds.shape[1]).expand(3, -1), mask.sum(1)[:, None] + torch.arange(t)], 1)
    # An explicit 4-dimensional mask: causal, and padding between prompt and target is hidden.
    full = torch.cat([mask, torch.ones(3, t, dtype=torch.bool)], 1)
    n = full.shape[1]
    visible = torch.ones(n, n, dtype=torch.bool).tril() & full[:, None]
    visible |= torch.eye(n, dtype=torch.bool)  # a padded row must see something
    attend = torch.zeros(3, 1, n, n).masked_fill(~visible[:, None], torch.finfo(torch.float32).min)
    out = model(
        inputs_embeds=torch.cat([embeds, targets], 1), attention_mask=attend, position_ids=positions, use_cache=False
    )
    return out.last_hidden_state[:, -t:]


@pytest.mark.parametrize("kind", KINDS)
def test_forward_equals_transformers(kind):
    backbone = tiny(kind)
    embeds, mask = prompts()
    targets = torch.randn(3, 5, D)
    with torch.no_grad():
        ours = backbone.decode(backbone.encode(embeds, mask), targets, torch.arange(3))
        reference = theirs(backbone, embeds, mask, targets)
    assert reference.std() > 0.1
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_batch_do_not_matter(kind):
    backbone = tiny(kind).double()
    embeds, mask = prompts(torch.float64)
    targets = torch.randn(3, 5, D, dtype=torch.float64)
    together = backbone.decode(backbone.encode(embeds, mask), targets, torch.arange(3))
    for i in range(3):
        n = int(mask[i].sum())
        alone = backbone.encode(embeds[i : i + 1, :n], mask[i : i + 1, :n])
        alone = backbone.decode(alone, targets[i : i + 1], torch.zeros(1, dtype=torch.long))
        torch.testing.assert_close(alone[0], together[i], atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("owner", [[0, 0, 1, 1, 2, 2], [2, 0, 2, 2, 1, 0, 2], [1], [1, 1, 1, 1, 1, 1, 1, 1, 0]])
def test_several_targets_share_a_prompt(kind, owner):
    backbone = tiny(kind).double()
    embeds, mask = prompts(torch.float64)
    owner = torch.tensor(owner)
    targets = torch.randn(len(owner), 4, D, dtype=torch.float64)
    memory = backbone.encode(embeds, mask)
    shared = backbone.decode(memory, targets, owner)
    copied = backbone.encode(embeds[owner], mask[owner])
    torch.testing.assert_close(shared, backbone.decode(copied, targets, torch.arange(len(owner))), atol=1e-10, rtol=0)


def test_grid_round_trip_and_skewed_fallback():
    x = torch.randn(4, 3)
    for owner, copies in ((torch.tensor([1, 0, 1, 1]), False), (torch.full((4,), 1), True)):
        grid = TargetGrid(owner, 2 if not copies else 9)
        assert (grid.owner is not None) == copies
        torch.testing.assert_close(grid.ungroup(grid.group(x)), x)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_teacher_forcing(kind):
    """A tree of beams: widths 1, 4, 6, 2, 5 with random parents; every path is checked against one decode pass."""
    backbone = tiny(kind).double()
    embeds, mask = prompts(torch.float64)
    memory = backbone.encode(embeds, mask)
    state = backbone.start(memory, 6)
    widths = [1, 4, 6, 2, 5]
    paths = torch.zeros(3, 0, 0, D, dtype=torch.float64)
    for t, width in enumerate(widths):
        new = torch.randn(3, width, D, dtype=torch.float64)
        parents = None if t < 2 else torch.randint(0, widths[t - 1], (3, width))
        if t:
            back = torch.zeros(3, width, dtype=torch.long) if parents is None else parents
            paths = torch.stack([paths[b, back[b]] for b in range(3)])
            paths = torch.cat([paths, new[:, :, None]], 2)
        else:
            paths = new[:, :, None]
        hidden = backbone.step(state, new, parents)
        owner = torch.arange(3).repeat_interleave(width)
        forced = backbone.decode(memory, paths.flatten(0, 1), owner)[:, -1].view(3, width, D)
        torch.testing.assert_close(hidden, forced, atol=1e-10, rtol=0)


def test_steps_need_parents_when_the_width_changes():
    backbone = tiny("bart")
    state = backbone.start(backbone.encode(*prompts()), 4)
    backbone.step(state, torch.randn(3, 2, D), None)
    with pytest.raises(ValueError, match="parents"):
        backbone.step(state, torch.randn(3, 4, D), None)


@pytest.mark.parametrize("kind", KINDS)
def test_fused_weights_follow_training(kind):
    """Those of a copy, such as averaged weights, follow the copy."""
    backbone = tiny(kind).double()
    embeds, mask = prompts(torch.float64)
    new = torch.randn(3, 1, D, dtype=torch.float64)
    for trained in (backbone, backbone, copy.deepcopy(backbone)):
        for _ in range(2):
            memory = trained.encode(embeds, mask)
            hidden = trained.step(trained.start(memory, 1), new, None)
            torch.testing.assert_close(hidden, trained.decode(memory, new, torch.arange(3)), atol=1e-10, rtol=0)
            with torch.no_grad():
                for parameter in trained.parameters():
                    parameter.mul_(1.1)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_only_in_training_and_gradients_flow(kind):
    backbone = tiny(kind, dropout=0.3)
    embeds, mask = prompts()
    targets = torch.randn(4, 5, D)
    owner = torch.tensor([0, 2, 2, 1])

    def run():
        return backbone.decode(backbone.encode(embeds, mask), targets, owner)

    torch.testing.assert_close(run(), run())
    backbone.train()
    assert (run() - run()).abs().max() > 1e-3
    run().square().sum().backward()
    missing = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    # The prompt's last layer gives keys and values only, but the target's pass uses all its weights.
    assert not missing


@pytest.mark.parametrize("kind", KINDS)
def test_layers_computed_again_have_the_same_gradients_and_keep_less(kind):
    backbone = tiny(kind, dropout=0.3).train()
    embeds, mask = prompts()
    targets, owner = torch.randn(4, 5, D), torch.tensor([0, 2, 2, 1])
    found = {}
    for again in (False, True):
        backbone.recompute = again
        backbone.zero_grad()
        torch.manual_seed(7)
        kept = []

        def keep(value, kept=kept):
            kept.append(value.numel())
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            hidden = backbone.decode(backbone.encode(embeds, mask), targets, owner)
        hidden.square().sum().backward()
        gradients = {name: parameter.grad.clone() for name, parameter in backbone.named_parameters()}
        found[again] = hidden.detach(), gradients, sum(kept)
    (hidden, gradients, kept), (again, others, fewer) = found[False], found[True]
    assert torch.equal(hidden, again) and all(torch.equal(gradients[name], others[name]) for name in gradients)
    assert fewer < 0.5 * kept


@pytest.mark.parametrize("kind", KINDS)
def test_rebuilt_from_its_own_config(kind):
    backbone = tiny(kind)
    config = BackboneSettings.model_validate_json(backbone.config.model_dump_json())
    other = build_backbone(config).eval()
    assert set(other.state_dict()) == set(backbone.state_dict())
    other.load_state_dict(backbone.state_dict())
    embeds, mask = prompts()
    targets = torch.randn(3, 2, D)
    owner = torch.arange(3)
    ours = backbone.decode(backbone.encode(embeds, mask), targets, owner)
    torch.testing.assert_close(other.decode(other.encode(embeds, mask), targets, owner), ours)
    copied = copy.deepcopy(backbone)
    torch.testing.assert_close(copied.decode(copied.encode(embeds, mask), targets, owner), ours)


@pytest.mark.parametrize("kind", KINDS)
def test_pretrained_folder(kind, tmp_path):
    from transformers import AutoConfig, AutoModel

    sizes = {
        "bart": {
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 16,
            "decoder_ffn_dim": 16,
            "d_model": 16,
        },
        "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
        "qwen3": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "intermediate_size": 16,
        },
    }[kind]
    model = AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=11, **sizes))
    model.save_pretrained(tmp_path)
    backbone = build_backbone(BackboneSettings(kind=kind, pretrained=str(tmp_path)))
    assert backbone.d_model == 16
    torch.testing.assert_close(backbone.pretrained_embedding, model.get_input_embeddings().weight.detach())
    key = next(k for k in backbone.model.state_dict() if k.endswith("weight"))
    torch.testing.assert_close(backbone.model.state_dict()[key], model.state_dict()[key])
    # Weights of half precision are trained in a whole one, as all others are.
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    half = build_backbone(BackboneSettings(kind=kind, pretrained=str(tmp_path / "half")))
    assert {p.dtype for p in half.parameters()} == {half.pretrained_embedding.dtype} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_runs(kind):
    backbone = tiny(kind).to(torch.bfloat16)
    embeds, mask = prompts(torch.bfloat16)
    with torch.inference_mode():
        state = backbone.start(backbone.encode(embeds, mask), 2)
        hidden = backbone.step(state, torch.randn(3, 2, D, dtype=torch.bfloat16), None)
        again = backbone.step(state, hidden, torch.tensor([[1, 0], [1, 1], [0, 0]]))
    assert hidden.dtype == torch.bfloat16 and again.isfinite().all()


def test_too_long_prompts_are_refused():
    for kind in ("bart", "gpt2"):
        with pytest.raises(ValueError, match="positions"):
            tiny(kind).encode(torch.randn(1, 41, D), torch.ones(1, 41, dtype=torch.bool))


def test_bad_head_counts_are_named():
    with pytest.raises(ValueError, match="heads"):
        BackboneSettings(d_model=30, heads=4)


@pytest.mark.parametrize(("theirs", "ours"), [("t5", "bart"), ("bart", "gpt2"), ("qwen2", "qwen3"), ("mbart", "bart")])
def test_weights_of_another_family_are_refused_by_name(theirs, ours, tmp_path):
    """Their layers have other names: transformers would leave ours at random and only print a warning."""
    from transformers import AutoConfig

    AutoConfig.for_model(theirs).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"family '{theirs}', but kind is '{ours}'"):
        BackboneSettings(kind=ours, pretrained=str(tmp_path))  # a folder, before anything runs
    with pytest.raises(ValueError, match=f"family '{theirs}', but kind is '{ours}'"):
        build_backbone(BackboneSettings.model_construct(kind=ours, pretrained=str(tmp_path), architecture=None))
    backbone = tiny(ours)  # a saved model carries its architecture: nothing is looked up
    again = backbone.config.updated(pretrained=str(tmp_path))
    assert build_backbone(again).d_model == D
