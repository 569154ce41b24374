"""The head that learns within a row while it is scored: its closed form, and how its rate is fitted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from torch import Tensor

from benchmarks.nanochat.catalogue.gpu import CATALOGUE
from tests import gpu_technique_play as play

pytestmark = pytest.mark.torch

B, T, C, V = 2, 9, 5, 7


@pytest.fixture(scope="module")
def tree() -> Iterator[dict[str, ModuleType]]:
    with play.loaded(play.changed(CATALOGUE["online_head"], "modern")) as modules:
        yield modules


def drawn(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features, scores = torch.randn(B, T, C, generator=generator), torch.randn(B, T, V, generator=generator)
    return features, scores, torch.randint(V, (B, T), generator=generator)


def test_the_correction_is_the_sum_of_what_earlier_positions_missed(tree: dict[str, ModuleType]):
    features, scores, tokens = drawn(1)
    wanted = torch.zeros(B, T, V)
    for row in range(B):
        for t in range(T):
            for i in range(t):
                cosine = torch.cosine_similarity(features[row, t], features[row, i], dim=0)
                missed = torch.eye(V)[tokens[row, i + 1]] - scores[row, i].softmax(0)
                wanted[row, t] += torch.exp(4.0 * (cosine - 1)) * missed
    assert torch.allclose(tree["online_head"].correction(features, scores, tokens, 4.0), wanted, atol=1e-5)


def test_it_is_a_step_of_gradient_descent_on_the_head_where_all_features_are_alike(tree: dict[str, ModuleType]):
    features, _, tokens = drawn(2)
    features = features[:, :1].expand(B, T, C) / features[:, :1].norm(dim=-1, keepdim=True)  # of length 1
    head = torch.randn(V, C, requires_grad=True)
    scores = features @ head.t()  # [B, T, V]
    step = tree["online_head"].correction(features, scores.detach(), tokens, 4.0)
    for row in range(B):
        earlier = torch.nn.functional.cross_entropy(scores[row, :-1], tokens[row, 1:], reduction="sum")
        (gradient,) = torch.autograd.grad(earlier, head, retain_graph=True)
        assert torch.allclose(step[row, -1], -(features[row, -1] @ gradient.t()), atol=1e-5)


def test_rows_that_repeat_themselves_are_fitted_a_high_rate_and_noise_the_lowest(tree: dict[str, ModuleType]):
    online = tree["online_head"]
    generator = torch.Generator().manual_seed(5)
    same = torch.randint(1, play.VOCABULARY, (60, 1), generator=generator).expand(60, 100).flatten().to(torch.uint16)
    rates = {}
    for name, text in (("same", same), ("noise", play.TEXT)):
        torch.manual_seed(3)
        model = tree["model"].build()
        torch.nn.init.normal_(model.head.weight, std=0.02)
        online.fit_online(model, text, play.LENGTH)
        assert model.training
        rates[name] = float(model.online[0])
        assert float(model.online[1]) in online.SHARPNESSES
    assert rates["same"] == pytest.approx(max(online.RATES))
    assert rates["noise"] == pytest.approx(min(online.RATES))


@pytest.mark.parametrize("last", [24, 86_069_063])
def test_rows_are_taken_from_the_whole_text_and_none_beyond_it(tree: dict[str, ModuleType], last: int):
    places = tree["online_head"].evenly(last)
    assert places[0] == 0 and places[-1] == last and len(places) == tree["online_head"].FITTED_ON
    assert all(abs(there - here - last / 15) <= 1 for here, there in pairwise(places))
