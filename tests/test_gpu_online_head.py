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
    online = tree["online_head"]
    features, scores, tokens = drawn(1)
    tokens[0, 5:7] = tokens[0, 2:4]  # ends with the same two tokens as an earlier position
    rates = torch.tensor([0.3, 0.2, 0.7])
    wanted = torch.zeros(B, T, V)
    for row in range(B):
        for t in range(T):
            for i in range(t):
                cosine = torch.cosine_similarity(features[row, t], features[row, i], dim=0)
                alike = [torch.exp(sharpness * (cosine - 1)) for sharpness in online.SHARPNESSES]
                ends_alike = i > 0 and torch.equal(tokens[row, i - 1 : i + 1], tokens[row, t - 1 : t + 1])
                missed = torch.eye(V)[tokens[row, i + 1]] - scores[row, i].softmax(0)
                wanted[row, t] += (rates @ torch.stack([*alike, torch.tensor(float(ends_alike))])) * missed
    assert torch.allclose(online.correction(features, scores, tokens, rates), wanted, atol=1e-5)


def test_it_is_a_step_of_gradient_descent_on_the_head_where_all_features_are_alike(tree: dict[str, ModuleType]):
    features, _, tokens = drawn(2)
    features = features[:, :1].expand(B, T, C) / features[:, :1].norm(dim=-1, keepdim=True)  # of length 1
    head = torch.randn(V, C, requires_grad=True)
    scores = features @ head.t()  # [B, T, V]
    step = tree["online_head"].correction(features, scores.detach(), tokens, torch.tensor([0.0, 1.0, 0.0]))
    for row in range(B):
        earlier = torch.nn.functional.cross_entropy(scores[row, :-1], tokens[row, 1:], reduction="sum")
        (gradient,) = torch.autograd.grad(earlier, head, retain_graph=True)
        assert torch.allclose(step[row, -1], -(features[row, -1] @ gradient.t()), atol=1e-5)


def test_slope_and_curvature_are_those_of_the_loss(tree: dict[str, ModuleType]):
    online = tree["online_head"]
    _, scores, tokens = drawn(3)
    steps = torch.randn(online.KERNELS, B, T, V, generator=torch.Generator().manual_seed(4))
    rates = torch.tensor([0.3, -0.2, 0.1])

    def of_rates(rates: Tensor) -> Tensor:
        mixed = scores + torch.einsum("k,kbtv->btv", rates, steps)
        return torch.nn.functional.cross_entropy(mixed.flatten(0, 1), tokens.flatten(), reduction="sum")

    loss, slope, curvature = online.at(rates, scores, steps, tokens.unsqueeze(-1))
    assert torch.allclose(loss, of_rates(rates))
    assert torch.allclose(slope, torch.autograd.functional.jacobian(of_rates, rates), atol=1e-4)
    assert torch.allclose(curvature, torch.autograd.functional.hessian(of_rates, rates), atol=1e-4)


def texts() -> dict[str, Tensor]:
    """Stretches of 100 tokens: of one token, of eight tokens that come in any order, of all tokens."""
    generator = torch.Generator().manual_seed(5)
    of_one = torch.randint(1, play.VOCABULARY, (60, 1), generator=generator).expand(60, 100)
    of_eight = torch.randint(1, play.VOCABULARY, (60, 8), generator=generator)
    of_eight = of_eight.gather(1, torch.randint(8, (60, 100), generator=generator))
    return {"one": of_one.flatten().to(torch.uint16), "eight": of_eight.flatten().to(torch.uint16), "all": play.TEXT}


@pytest.mark.parametrize(("name", "least", "most"), [("one", 0.4, 1.0), ("eight", 0.1, 0.5), ("all", 0.0, 0.01)])
def test_the_rates_are_fitted_to_what_rows_tell_of_themselves(
    tree: dict[str, ModuleType], name: str, least: float, most: float
):
    online, tokens = tree["online_head"], texts()[name]
    torch.manual_seed(3)
    model = tree["model"].build()
    torch.nn.init.normal_(model.head.weight, std=0.02)
    online.fit_online(model, tokens, play.LENGTH)
    assert model.training

    places = online.evenly(len(tokens) - play.LENGTH - 1)
    rows = torch.stack([tokens[at : at + play.LENGTH + 1].long() for at in places])
    fitted = model.online.clone()

    def loss(rates: Tensor) -> float:
        model.online.copy_(rates)
        with torch.no_grad():
            scores = model.eval()(rows[:, :-1])
        return float(torch.nn.functional.cross_entropy(scores.flatten(0, 1), rows[:, 1:].flatten()))

    best, without = loss(fitted), loss(torch.zeros(online.KERNELS))
    assert least <= (without - best) / without <= most
    if name == "eight":  # near the best that there is
        nearby = [loss(fitted + change * one) for one in torch.eye(online.KERNELS) for change in (-0.05, 0.05)]
        assert min(nearby) > best * 0.998


@pytest.mark.parametrize("last", [24, 86_069_063])
def test_rows_are_taken_from_the_whole_text_and_none_beyond_it(tree: dict[str, ModuleType], last: int):
    places = tree["online_head"].evenly(last)
    assert places[0] == 0 and places[-1] == last and len(places) == tree["online_head"].FITTED_ON
    assert all(abs(there - here - last / 15) <= 1 for here, there in pairwise(places))
