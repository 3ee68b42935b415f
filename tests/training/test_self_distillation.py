"""The V2 step on a tiny generator: every switch, the batch layout, and what FGM leaves behind."""

import numpy as np
import pytest
import torch

from onesearch.index.sid_index import SidIndex
from onesearch.model.backbones import BackboneSettings
from onesearch.model.evidence import EVIDENCE_NUMBERS
from onesearch.model.generator import Generator, Sizes
from onesearch.model.model_settings import ModelSettings
from onesearch.model.prompt_batch import ItemTokens, PromptBatch
from onesearch.model.token_vocabulary import MARKS
from onesearch.search.path_scoring import chosen_log_probs, path_distributions, score_paths
from onesearch.training import self_distillation
from onesearch.training.distillation_losses import distillation_kl
from onesearch.training.self_distillation import (
    DistillationSettings,
    SelfDistillationObjective,
    distillation_loss,
    encode_both,
    repeat_targets,
)
from onesearch.training.supervised import SupervisedObjective
from onesearch.training.supervised_losses import item_nll
from onesearch.training.tasks import TaskBatch, item_targets

CODEBOOKS, D, R, E, N = (5, 4, 3, 6, 6), 16, 8, 12, 60
OFF = DistillationSettings(kl=0, teacher_ce=0, r_drop=0, fgm=0, focal=False)


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    sids = np.stack([(size * rng.random(N) ** 2).astype(np.int64) for size in CODEBOOKS], 1)
    rows = rng.normal(size=(N, R)).astype(np.float32)
    index = SidIndex.build(sids, rows, CODEBOOKS)
    torch.manual_seed(3)
    backbone = BackboneSettings(d_model=D, heads=2, encoder_layers=1, decoder_layers=1, ffn=24, max_positions=32)
    centroids = [torch.randn(size, E) for size in CODEBOOKS[:3]]
    generator = Generator(ModelSettings(backbone=backbone), Sizes(20, CODEBOOKS, E, R, 1.5), centroids)
    for parameter in generator.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return generator, index, torch.from_numpy(rows)


def prompt(lengths, seed, keywords=False):
    rng = torch.Generator().manual_seed(seed)
    n, width = len(lengths), max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    tokens = torch.randint(4, 20, (n, width), generator=rng) * mask
    if keywords:
        tokens[:, -2] = 20 + MARKS.index("kw")
    vectors, rows = torch.randn(n, E, generator=rng), torch.randn(n, R, generator=rng)
    return PromptBatch(tokens, mask, vectors, rows, None, torch.randn(n, E, generator=rng) if keywords else None)


def batch(teacher=True):
    owner = np.array([0, 0, 1, 2, 3])
    items = item_targets(np.array([4, 9, 30, 9, 58]), owner, np.array([1.0, 2, 1, 1, 2]), N, 100, owner)
    made = TaskBatch("search", prompt([6, 3, 5, 2], 1), items=items)
    if teacher:
        made.teacher, made.with_teacher = prompt([9, 7], 2, keywords=True), torch.tensor([0, 2])
    return made


def objective(parts, settings=OFF, score=0.0, codebook=0.0):
    made = SelfDistillationObjective(*parts, score, codebook, settings)
    return made.eval()


def test_with_everything_off_it_is_the_plain_stage_3(parts):
    plain = SupervisedObjective(*parts, 1.0, 0.1).eval()(batch())
    ours = objective(parts, OFF, 1.0, 0.1)(batch())
    for name in ("loss", "score", "codebook", "level_1"):
        torch.testing.assert_close(ours[name], plain[name])


def test_label_smoothing_is_that_of_the_plain_stage_3_in_both_passes(parts):
    plain = SupervisedObjective(*parts, 0.0, 0.0, 0.2).eval()(batch())
    ours = SelfDistillationObjective(*parts, 0.0, 0.0, OFF, 0.2).eval()
    for found in (ours(batch()), ours(batch(), adversarial=True)):
        torch.testing.assert_close(found["loss"], plain["loss"])


def test_teacher_and_student_in_one_batch_equal_each_alone(parts):
    generator, index, _ = parts
    made = batch()
    terms = objective(parts, OFF.updated(kl=1.0, teacher_ce=0.5))(made)
    paths = index.path(made.items.rows)
    student, _ = path_distributions(generator, generator.encode(made.prompt), paths, made.items.owner, index)
    taught, of_teacher = torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1])
    teacher, _ = path_distributions(generator, generator.encode(made.teacher), paths[taught], of_teacher, index)
    log_probs, _ = score_paths(generator, generator.encode(made.prompt), paths[taught], torch.tensor([0, 0, 2]), index)
    torch.testing.assert_close(chosen_log_probs(student, 5)[taught], log_probs)
    of_taught, _ = path_distributions(
        generator, generator.encode(made.prompt), paths[taught], torch.tensor([0, 0, 2]), index
    )
    weights = made.items.weights[taught]
    kl = distillation_kl(teacher, of_taught, weights)
    ce, _ = item_nll(chosen_log_probs(student, 5), made.items.weights)
    teacher_ce, _ = item_nll(chosen_log_probs(teacher, 3), weights)
    share = 4 / 7  # of the weights, that is of the page views that have a teacher
    torch.testing.assert_close(terms["kl"], kl.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(terms["teacher_ce"], teacher_ce.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(terms["loss"], ce + share * (kl + 0.5 * teacher_ce), atol=1e-5, rtol=1e-4)


def test_two_copies_differ_by_dropout_only_while_training(parts):
    made = objective(parts, OFF.updated(r_drop=0.5))
    assert "r_drop" not in made(batch())
    torch.manual_seed(0)
    terms = made.train()(batch())
    assert terms["r_drop"] > 0


def test_the_joint_memory_reads_as_each_alone(parts):
    generator, index, _ = parts
    made = batch()
    both = encode_both(generator.eval(), made.prompt, made.teacher)
    paths = index.path(torch.tensor([4, 9, 30, 9, 58, 11]))
    _, hidden = path_distributions(generator, both, paths, torch.arange(6), index)
    for prompt_batch, rows in ((made.prompt, slice(0, 4)), (made.teacher, slice(4, 6))):
        alone = generator.encode(prompt_batch)
        owner = torch.arange(len(prompt_batch))
        _, of_alone = path_distributions(generator, alone, paths[rows], owner, index)
        torch.testing.assert_close(hidden[rows], of_alone, atol=1e-5, rtol=1e-4)
    assert encode_both(generator, made.prompt, None).prompts.mask.shape == (4, 6 + 1)


def test_repeated_targets_belong_to_the_repeated_prompts():
    items = batch().items
    twice = repeat_targets(items, 2, 4)
    assert twice.owner.tolist() == [0, 0, 1, 2, 3, 4, 4, 5, 6, 7]
    assert twice.rows.tolist() == items.rows.tolist() * 2


def test_stacked_prompts_keep_their_tokens_and_have_no_keywords_of_others():
    one, two = prompt([6, 3], 1), prompt([9], 2, keywords=True)
    both = PromptBatch.concatenate([one, two])
    assert both.tokens.shape == (3, 9) and both.mask.sum(1).tolist() == [6, 3, 9]
    assert torch.equal(both.tokens[:2, :6], one.tokens)
    assert (both.keyword_vectors[:2] == 0).all() and torch.equal(both.keyword_vectors[2:], two.keyword_vectors)


def test_the_teachers_target_gets_no_gradient_unless_training_is_joint(parts):
    made = batch()
    for detach, wanted in ((True, False), (False, True)):
        made.teacher.keyword_vectors = made.teacher.keyword_vectors.detach().requires_grad_()
        terms = objective(parts, OFF.updated(kl=1.0, detach=detach))(made)
        terms["loss"].backward()
        grad = made.teacher.keyword_vectors.grad
        assert (grad is not None and bool(grad.abs().sum() > 0)) == wanted


def test_fgm_adds_the_gradient_of_the_perturbed_input_and_restores_the_tables(parts):
    settings = OFF.updated(kl=1.0, fgm=0.6)
    made = objective(parts, settings)
    before = [table.detach().clone() for table in made.tables]
    losses = []
    for terms in distillation_loss(made, batch()):
        terms["loss"].backward()
        losses.append(float(terms["loss"].detach()))
    assert len(losses) == 2 and losses[1] > losses[0]  # the step goes uphill
    assert all(torch.equal(table.detach(), kept) for table, kept in zip(made.tables, before, strict=True))
    both = made.tables[1].grad.clone()
    made.zero_grad()
    made(batch())["loss"].backward()
    assert not torch.allclose(both, made.tables[1].grad)


def test_fgm_follows_cross_entropy_and_divergence_alone(parts):
    """The other terms, a hundred times as heavy, and gradients of earlier batches leave the step as it is."""
    settings = OFF.updated(kl=1.0, fgm=0.6, focal=True)
    made = objective(parts, settings.updated(teacher_ce=100.0, hidden=100.0), score=100.0, codebook=100.0)
    before = [table.detach().clone() for table in made.tables]
    # By hand: both terms with their weights, the teacher's logits held constant.
    generator, index, _ = parts
    given = batch()
    paths, taught = index.path(given.items.rows), torch.tensor([0, 1, 3])
    student, _ = path_distributions(generator, generator.encode(given.prompt), paths, given.items.owner, index)
    with torch.no_grad():
        memory = generator.encode(given.teacher)
        teacher, _ = path_distributions(generator, memory, paths[taught], torch.tensor([0, 0, 1]), index)
    log_probs, weights = chosen_log_probs(student, 5), given.items.weights
    ce = -2 * ((1 - log_probs.exp()) ** 3 * log_probs).sum(1) @ weights / weights.sum()
    of_taught, _ = path_distributions(
        generator, generator.encode(given.prompt), paths[taught], torch.tensor([0, 0, 2]), index
    )
    base = ce + 4 / 7 * distillation_kl(teacher, of_taught, weights[taught])
    wanted = torch.autograd.grad(base, made.tables)
    norm = sum(float(gradient.square().sum()) for gradient in wanted) ** 0.5

    made.zero_grad()
    for table in made.tables:
        table.grad = torch.randn_like(table)
    earlier = [table.grad.clone() for table in made.tables]
    steps = distillation_loss(made, given)
    first = next(steps)
    assert "base" not in first  # no term to log
    assert all(torch.equal(table.grad, kept) for table, kept in zip(made.tables, earlier, strict=True))
    first["loss"].backward()
    next(steps)
    for table, kept, gradient in zip(made.tables, before, wanted, strict=True):
        torch.testing.assert_close(table.detach() - kept, 0.6 * gradient / norm, atol=1e-5, rtol=1e-3)
    steps.close()
    assert all(torch.equal(table.detach(), kept) for table, kept in zip(made.tables, before, strict=True))


def test_own_clicks_are_taken_off_the_targets_of_students_and_teacher(parts):
    generator, index, _ = parts
    made = objective(parts, OFF.updated(kl=1.0, teacher_ce=1.0, fgm=0.6))
    own = torch.randn(5, 3)
    given = batch()
    given.items.leave_out = own
    owner, paths, taught = given.items.owner, index.path(given.items.rows), torch.tensor([0, 1, 3])
    clicks = given.items.own_clicks(paths, len(given.prompt))
    assert clicks.nodes.shape[1] > 1, "a page view has several targets; all of its clicks are taken off each path"
    left = clicks.select(owner)
    student, _ = score_paths(generator, generator.encode(given.prompt), paths, owner, index, leave_out=left)
    memory, left = generator.encode(given.teacher), left.select(taught)
    teacher, _ = score_paths(generator, memory, paths[taught], torch.tensor([0, 0, 1]), index, leave_out=left)
    terms = made(given)
    torch.testing.assert_close(terms["ce"], item_nll(student, given.items.weights)[0])
    torch.testing.assert_close(terms["teacher_ce"], item_nll(teacher, given.items.weights[taught])[0])
    # On the input as it is, the second pass is the first one's base.
    torch.testing.assert_close(made(given, adversarial=True)["loss"], terms["base"])
    twice = repeat_targets(given.items, 2, 4)
    assert torch.equal(twice.leave_out, torch.cat([own, own]))


def test_the_joint_memory_has_the_evidence_of_both(parts):
    _, index, _ = parts
    torch.manual_seed(3)
    backbone = BackboneSettings(d_model=D, heads=2, encoder_layers=1, decoder_layers=1, ffn=24, max_positions=32)
    config = ModelSettings(backbone=backbone, prompt={"evidence": {"lexical": 3}})
    generator = Generator(config, Sizes(20, CODEBOOKS, E, R, 1.5), [torch.randn(size, E) for size in CODEBOOKS[:3]])
    for parameter in generator.pointer.parameters():
        torch.nn.init.normal_(parameter)
    made = batch()
    numbers = len(EVIDENCE_NUMBERS)
    made.prompt.items = ItemTokens(torch.randint(0, N, (4, 3)), torch.randn(4, 3, R), torch.rand(4, 3, numbers))
    made.teacher.items = ItemTokens(torch.tensor([[4, 9], [30, -1]]), torch.randn(2, 2, R), torch.rand(2, 2, numbers))
    both = encode_both(generator.eval(), made.prompt, made.teacher)
    paths = index.path(torch.tensor([4, 9, 30, 9, 4, 30]))
    found, _ = score_paths(generator, both, paths, torch.arange(6), index)
    for prompt_batch, rows in ((made.prompt, slice(0, 4)), (made.teacher, slice(4, 6))):
        memory = generator.encode(prompt_batch)
        alone, _ = score_paths(generator, memory, paths[rows], torch.arange(len(prompt_batch)), index)
        torch.testing.assert_close(found[rows], alone, atol=1e-5, rtol=1e-4)


def test_layers_computed_again_change_no_gradient_of_both_passes(parts):
    made = objective(parts, DistillationSettings(), 1.0, 0.1).train()
    found = []
    for again in (False, True):
        made.generator.backbone.recompute = again
        made.zero_grad()
        torch.manual_seed(5)
        for terms in distillation_loss(made, batch()):
            terms["loss"].backward()
        found.append({name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 20
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_several_processes_take_one_adversarial_step(parts, monkeypatch):
    made = objective(parts, OFF.updated(fgm=0.6))
    base = made(batch())["base"]
    alone = self_distillation._gradients(base, made.tables)
    monkeypatch.setattr(self_distillation, "place", lambda: (0, 2))
    monkeypatch.setattr(self_distillation.distributed, "all_reduce", lambda gradient: gradient.add_(1.0))
    for own, together in zip(alone, self_distillation._gradients(base, made.tables), strict=True):
        torch.testing.assert_close(together, own + 1.0)


def test_batches_without_item_targets_have_one_plain_step(parts):
    made = objective(parts, OFF.updated(fgm=0.6))
    text = TaskBatch("query_to_sid", prompt([3, 4], 5), sids=torch.zeros(2, 5, dtype=torch.int64))
    assert len(list(distillation_loss(made, text))) == 1


def test_an_ema_teacher_follows_the_live_weights_and_gives_the_target(parts):
    generator, index, _ = parts
    made = objective(parts, OFF.updated(kl=1.0, ema=0.75)).train()
    first = {name: value.clone() for name, value in generator.named_parameters()}
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1)
    terms = made(batch())
    for name, value in made.average.named_parameters():
        torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * (first[name] + 0.1))
    assert not any(value.requires_grad for value in made.average.parameters()) and not made.average.training
    terms["loss"].backward()
    assert all(value.grad is None for value in made.average.parameters())

    made.eval()
    given = batch()
    paths, taught = index.path(given.items.rows), torch.tensor([0, 1, 3])
    average = made.average
    teacher, _ = path_distributions(
        average, average.encode(given.teacher), paths[taught], torch.tensor([0, 0, 1]), index
    )
    student, _ = path_distributions(
        generator, generator.encode(given.prompt), paths[taught], torch.tensor([0, 0, 2]), index
    )
    wanted = distillation_kl(teacher, student, given.items.weights[taught])
    torch.testing.assert_close(made(given)["kl"], wanted.detach(), atol=1e-5, rtol=1e-4)
    assert any(name.startswith("average.") for name in made.state_dict())  # a resumed training has the same teacher


@pytest.mark.parametrize(("elsewhere", "moves"), [(1, True), (0, False)])
def test_an_ema_teacher_moves_in_all_processes_or_in_none(parts, monkeypatch, elsewhere, moves):
    made = objective(parts, OFF.updated(kl=1.0, ema=0.75)).train()
    before = made.average.text_embedding.weight.clone()
    with torch.no_grad():
        made.generator.text_embedding.weight.add_(0.1)
    # This share has no page view with a teacher; that of the other process may have one.
    monkeypatch.setattr(self_distillation, "exchanged", lambda own: [own, elsewhere])
    made(batch(teacher=False))
    assert torch.equal(made.average.text_embedding.weight, before) is not moves


def test_text_among_few_subwords_is_the_softmax_over_these(parts):
    made = SupervisedObjective(*parts, 0.0).eval()
    text = torch.tensor([[1, 5, 9, 2, 0], [1, 9, 2, 0, 0]])
    few = torch.tensor([0, 1, 2, 5, 9])
    given = TaskBatch("t", prompt([4, 6], 5), text=text, subwords=few)
    memory = made.generator.encode(given.prompt)
    hidden = made.generator.backbone.decode(memory.prompts, made.generator.embed(text[:, :-1]), torch.arange(2))
    log_probs = made.generator.text_logits(hidden)[..., few].log_softmax(-1)
    place = {subword: number for number, subword in enumerate(few.tolist())}
    wanted = [-log_probs[row, at, place[int(text[row, at + 1])]] for row in (0, 1) for at in range(3 - row)]
    torch.testing.assert_close(made(given)["loss"], torch.stack(wanted).mean())


def test_several_sids_of_a_prompt_are_targets_beside_each_other(parts):
    made = SupervisedObjective(*parts, 0.0).eval()
    one, two, three = [1, 2, 0, 5, 3], [4, 0, 1, 2, 2], [0, 0, 2, 1, 4]
    both = TaskBatch("t", prompt([4, 6], 5), sids=torch.tensor([one, two, three]), owner=torch.tensor([0, 0, 1]))
    again = TaskBatch("t", prompt([4, 6], 5), sids=torch.tensor([two, three]))
    alone = TaskBatch("t", prompt([4, 6], 5), sids=torch.tensor([one, three]))
    twice = made(again)["loss"] + made(alone)["loss"]
    last = made(TaskBatch("t", prompt([4, 6], 5), sids=torch.tensor([three]), owner=torch.tensor([1])))["loss"]
    torch.testing.assert_close(3 * made(both)["loss"] + last, 2 * twice, atol=1e-4, rtol=1e-4)


def test_rows_of_words_come_to_the_teachers_row_and_nothing_else_moves_them(parts):
    _, index, rows = parts
    torch.manual_seed(3)
    backbone = BackboneSettings(d_model=D, heads=2, encoder_layers=1, decoder_layers=1, ffn=24, max_positions=32)
    config = ModelSettings(backbone=backbone, word_rows=True)
    generator = Generator(config, Sizes(20, CODEBOOKS, E, R, 1.5), [torch.randn(size, E) for size in CODEBOOKS[:3]])
    given = batch()
    for one in (given.prompt, given.teacher):
        one.tokens[:, 0] = 20 + MARKS.index("q")
    one = torch.nn.functional.normalize
    given.prompt.query_head_rows, keywords = (
        one(given.prompt.query_head_rows, dim=1),
        one(given.teacher.query_head_rows, dim=1),
    )
    given.teacher.query_head_rows = one(given.prompt.query_head_rows[given.with_teacher] + keywords, dim=1)
    settings = OFF.updated(kl=1.0, row=0.5, teacher_ce=1.0)
    made = SelfDistillationObjective(generator, index, rows, 0.0, 0.0, settings)
    without = SelfDistillationObjective(generator, index, rows, 0.0, 0.0, settings.updated(row=0))
    without(given)["loss"].backward()
    assert generator.word_rows.weight.grad is None
    terms, bare = made(given), without(given)
    assert terms["row"].item() == pytest.approx(np.log(2) + 1)  # nothing is known yet
    assert (terms["loss"] - bare["loss"]).item() == pytest.approx(0.5 * terms["row"].item(), rel=1e-4)
    torch.testing.assert_close(generator.query_head_rows(given.prompt), given.prompt.query_head_rows)
    optimizer = torch.optim.Adam([generator.word_rows.weight, generator.word_bias], 0.02)
    for _ in range(300):
        optimizer.zero_grad()
        made(given)["loss"].backward()
        optimizer.step()
    # What the teacher reads has become the student's; prompts without a teacher keep their row.
    learnt = generator.query_head_rows(given.prompt)
    torch.testing.assert_close(learnt[given.with_teacher], given.teacher.query_head_rows, atol=0.05, rtol=0)
    torch.testing.assert_close(learnt[[1, 3]], given.prompt.query_head_rows[[1, 3]])
