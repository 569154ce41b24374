"""The two starts of the GPU lane, at tiny size on a CPU: they learn, see no later token, and do what they say."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from tests import start_play as play

pytestmark = pytest.mark.torch

every_start = pytest.mark.parametrize("start", ["modern", "vanilla"])
ROWS = torch.randint(0, play.VOCABULARY, (3, play.LENGTH), generator=torch.Generator().manual_seed(2))
TARGETS = torch.randint(0, play.VOCABULARY, (3, play.LENGTH), generator=torch.Generator().manual_seed(5))


def shaken(tree):
    """A model whose weights are all away from zero."""
    model = tree.model.build()
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(0.1 * torch.randn(value.shape))
    return model.eval()


@pytest.mark.parametrize("start", [pytest.param("modern", marks=pytest.mark.slow), "vanilla"])
def test_a_start_learns_from_tokens_and_hands_over_in_time(start):
    with play.loaded(start, steps=36) as tree:
        tree.train.main()
        harness = tree.harness
        model = tree.model.build()
        assert harness.reserved == {name: value.shape for name, value in harness.state.items()}
        model.load_state_dict(harness.state, strict=True)
    assert abs(harness.losses[0] - math.log(play.VOCABULARY)) < 0.1
    share = torch.bincount(play.text_tokens().long()).double() / len(play.text_tokens())
    unigram = -(share * share.log()).sum().item()  # 2.4 nats
    assert harness.losses[-1] < (unigram - 0.3 if start == "modern" else 0.7 * harness.losses[0])
    assert len(harness.losses) == harness.finished + 1  # the clock is not looked at behind the last step
    assert 0.95 < len(harness.losses) * harness.share <= 1 - 0.5 / 60  # half a second of a minute is for handing over
    assert harness.rates[-1] < 0.2 * max(harness.rates)


@every_start
def test_no_score_depends_on_a_later_token_or_on_another_row(start):
    with play.loaded(start) as tree, torch.inference_mode():
        model = shaken(tree)
        scores = model(ROWS)
        assert scores.shape == (*ROWS.shape, play.VOCABULARY)
        for cut in (1, 16, 40, 63):
            other = ROWS.clone()
            other[:, cut:] = (other[:, cut:] + 1) % play.VOCABULARY
            after = model(other)
            assert torch.allclose(after[:, :cut], scores[:, :cut], atol=1e-5)
            assert not torch.allclose(after[:, cut], scores[:, cut], atol=1e-3)
        assert torch.allclose(model(ROWS[:, :5]), scores[:, :5], atol=1e-5)
        assert torch.allclose(model(ROWS[1:2]), scores[1:2], atol=1e-5)


def test_modern_with_long_windows_is_the_plain_model():
    """Scores, loss and gradients of the script that the throughput bench compares with, for the same weights."""
    with play.loaded("modern+long") as tree:
        model = shaken(tree)
        loss = tree.train.compute_loss(model, ROWS, TARGETS)
        loss.backward()
    with play.loaded("plain") as tree:
        plain = tree.model.build(torch.device("cpu"))
        plain.load_state_dict(plain_names(model.state_dict()), strict=True)
        plain_loss = plain(ROWS, TARGETS)
        plain_loss.backward()
    assert abs(loss.item() - plain_loss.item()) < 1e-5
    gradients = plain_names({name: p.grad for name, p in model.named_parameters()})
    for name, parameter in plain.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-6, rtol=1e-3), name


def plain_names(values):
    plain = {}
    for name, value in values.items():
        if "query_key_value" in name:
            for part, one in zip(("query", "key", "value"), value.chunk(3), strict=True):
                plain[name.replace("query_key_value", part)] = one
        else:
            for old, new in (
                ("token_embedding", "embedding"), ("attention_output", "output"), ("expand", "up"),
                ("contract", "down"), ("value_gate", "gate"),
            ):  # fmt: skip
                name = name.replace(old, new)
            if "value_embedding" in name:
                name = f"value_embeddings.{name.split('.')[1]}.weight"
            plain[name] = value
    return plain


def test_the_loss_made_in_parts_is_the_plain_cross_entropy():
    with play.loaded("modern", LOSS_ROWS=100) as tree:  # 192 rows: the last part is shorter
        model = shaken(tree)
        model.head.weight.data.mul_(5)
        gradients = []
        for loss in (tree.train.compute_loss(model, ROWS, TARGETS), None):
            loss = loss if loss is not None else F.cross_entropy(model(ROWS).flatten(0, 1), TARGETS.flatten())
            model.zero_grad()
            loss.backward()
            gradients.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    for in_parts, whole in zip(*gradients, strict=True):
        assert torch.allclose(in_parts, whole, atol=1e-6, rtol=1e-4)


def test_a_window_shows_a_query_itself_and_what_comes_just_before_it():
    with play.loaded("modern") as tree:
        q, k, v = torch.randn(3, 1, 10, 4, 16)
        y = tree.model.attend(q[None, 0], k[None, 0], v[None, 0], 3, None)
        for query in range(10):
            seen = slice(max(0, query - 2), query + 1)
            weights = torch.einsum("hd,khd->hk", q[0, query], k[0, seen]) / 4
            expected = torch.einsum("hk,khd->hd", weights.softmax(-1), v[0, seen])
            assert torch.allclose(y[0, query], expected, atol=1e-5)
        assert [tree.model.window_of(layer) for layer in range(2)] == [8, 64]
    with play.loaded("modern", DEPTH=8) as tree:
        assert [tree.model.window_of(layer) for layer in range(8)] == [8, 8, 8, 64, 8, 8, 8, 64]


def test_the_block_mask_of_a_window_skips_the_blocks_outside_it():
    with play.loaded("modern", SEQUENCE_LENGTH=1024, SHORT_WINDOW=256) as tree:
        mask = tree.model.block_mask(256, "cpu")
        visited = mask.to_dense()[0, 0]  # [8, 8] blocks of 128
        for query, key in itertools.product(range(8), range(8)):
            assert bool(visited[query, key]) == (0 <= query - key <= 2), (query, key)
        assert tree.model.block_mask(1024, "cpu") is None


def test_rotation_keeps_lengths_and_knows_only_distances():
    with play.loaded("modern") as tree:
        angles = tree.model.rotary_angles()
        q, k = torch.randn(2, 16)
        turned = [tree.model.rotate(x.expand(1, play.LENGTH, 1, 16), angles)[0, :, 0] for x in (q, k)]
        assert torch.allclose(turned[0].norm(dim=-1), q.norm().expand(play.LENGTH), atol=1e-4)
        scores = turned[0] @ turned[1].T
        assert torch.allclose(scores[5, 2], scores[40, 37], atol=1e-4)
        assert not torch.allclose(scores[5, 2], scores[5, 3], atol=1e-3)


def test_muon_makes_a_step_orthogonal_and_rows_even():
    with play.loaded("modern") as tree:
        optim = tree.optim
        for shape in ((2, 64, 64), (2, 96, 32), (2, 32, 96)):
            u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
            step = optim.orthogonalise(u * torch.logspace(-2, 0, u.size(-1)) @ v)
            values = torch.linalg.svdvals(step)
            assert values.min() > 0.8 and values.max() < 1.2
        update = torch.randn(2, 32, 16) * torch.logspace(-1, 1, 32).view(1, 32, 1)
        even = optim.even_out(update, torch.zeros(2, 32, 1))
        assert torch.allclose(even.norm(dim=(1, 2)), update.norm(dim=(1, 2)), rtol=1e-4)
        assert even.norm(dim=2).std(dim=1).max() < 1e-2 and update.norm(dim=2).std(dim=1).min() > 1


def test_each_parameter_has_one_update_and_queries_keys_and_values_are_three_matrices():
    with play.loaded("modern") as tree:
        model = tree.model.build()
        optimizer = tree.optim.build_optimizer(model)
        groups = [*optimizer.adamw_groups, *optimizer.muon_groups]
        grouped = [id(p) for group in groups for p in group["params"]]
        assert sorted(grouped) == sorted(id(p) for p in model.parameters())
        shapes = {group["shape"]: len(group["average"]) for group in optimizer.muon_groups}
        assert shapes == {(4, 32): 1, (64, 64): 8, (64, 256): 2, (256, 64): 2}
        weight = model.blocks[0].attention.query_key_value.weight
        stacked = tree.optim.stack([weight], (64, 64))
        tree.optim.unstack(2 * stacked, [weight.data])
        assert torch.equal(weight.data, 2 * stacked.flatten(0, 1))


def test_decay_only_pulls_where_the_step_does():
    with play.loaded("modern") as tree:
        weight, gradient = torch.randn(2, 1, 16, 16)
        average, variance, before = torch.zeros(1, 16, 16), torch.zeros(1, 16, 1), weight.clone()
        still = before.clone()
        rate, none, decay, inertia = tree.optim.scalar(0.1, 0.0, 0.5, 0.9)
        tree.optim.muon_update(still, gradient, average.clone(), variance.clone(), rate, none, inertia)
        tree.optim.muon_update(weight, gradient, average, variance, rate, decay, inertia)
        step, pull = before - still, still - weight
        agrees = step * before >= 0
        assert torch.allclose(pull, 0.1 * 0.5 * before * agrees, atol=1e-6)
        assert 0.2 < agrees.float().mean() < 0.8


def test_adamw_takes_the_steps_of_pytorch():
    with play.loaded("modern") as tree:
        p = torch.nn.Parameter(torch.randn(5, 7))
        mine, average, variance = p.detach().clone(), torch.zeros(5, 7), torch.zeros(5, 7)
        reference = torch.optim.AdamW([p], lr=0.01, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0)
        for step in range(1, 4):
            p.grad = torch.randn(5, 7)
            scalars = tree.optim.scalar(0.01, 0.8, 1 - 0.8**step, 1 - 0.95**step)
            tree.optim.adamw_update(mine, p.grad, average, variance, *scalars)
            reference.step()
        assert torch.allclose(mine, p, atol=1e-6)


@every_start
def test_warming_up_leaves_no_trace(start):
    with play.loaded(start) as tree:
        model = tree.model.build()
        optimizer = tree.optim.build_optimizer(model)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        tree.train.warm_up(model, optimizer, tree.train.compute_loss, torch.device("cpu"))
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name])
        if start == "modern":
            states = [s for group in optimizer.adamw_groups for s in (*group["average"], *group["variance"])]
            states += [group[name] for group in optimizer.muon_groups for name in ("average", "variance")]
            assert optimizer.steps == 0 and all(not s.any() for s in states)
        else:
            assert not optimizer.state


def test_an_epoch_shows_every_row_once_and_a_seed_fixes_the_order():
    with play.loaded("modern") as tree:
        tokens = torch.arange(2000).to(torch.uint16)

        def batches(seed, count):
            loader = tree.data.Loader(tokens, 4, 64, seed, torch.device("cpu"))
            return list(itertools.islice(loader, count))

        first = batches(1, 7)
        for inputs, targets in first:
            assert inputs.shape == targets.shape == (4, 64) and inputs.dtype == targets.dtype == torch.int64
            assert torch.equal(inputs[:, 1:], targets[:, :-1]) and torch.equal(inputs + 1, targets)
        seen = torch.cat([inputs.flatten() for inputs, _ in first])
        assert len(seen.unique()) == len(seen)  # 28 of the 30 or 31 rows of the first epoch
        assert all(torch.equal(a[0], b[0]) for a, b in zip(first, batches(1, 7), strict=True))
        assert not torch.equal(first[0][0], batches(2, 1)[0][0])


def test_both_starts_have_one_loader():
    from tests.gpu.variants import STARTS

    assert (STARTS / "modern" / "data.py").read_text() == (STARTS / "vanilla" / "data.py").read_text()
