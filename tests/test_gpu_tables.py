"""Hashed tables of the GPU lane: equal to dense RMSProp, hashes of their own, steps on what a batch touched alone."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn.functional import embedding

from benchmarks.nanochat.catalogue.gpu import CATALOGUE
from tests import gpu_technique_play as play

pytestmark = pytest.mark.torch

ROWS, WIDTH, B, T = 64, 16, 3, 10


@pytest.fixture
def tables() -> Iterator[ModuleType]:
    with play.loaded(play.changed(CATALOGUE["bigram_values"], "modern")) as modules:
        yield modules["tables"]


def made(tables: ModuleType, order: int = 2, number: int = 3, rows: int = ROWS) -> torch.nn.Module:
    table = tables.HashedTable(order, rows, WIDTH, 0.1, number)
    table.weight = table.weight.float()
    return table


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 30, (B, T), generator=generator)
    return tokens, torch.randn(B, T, WIDTH, generator=generator)


def test_steps_equal_those_of_a_dense_rmsprop(tables: ModuleType):
    table = made(tables)
    table.open(B, T)
    weight, moment, steps = table.weight.clone(), torch.zeros_like(table.weight), 8
    for step in range(1, steps + 1):
        tokens, wanted = batch(step)
        dense = weight.clone().requires_grad_()
        (embedding(table.index(tokens), dense).flatten(-2) - wanted).square().mean().backward()
        assert dense.grad is not None
        moment = tables.BETA2 * moment + (1 - tables.BETA2) * dense.grad.square()
        corrected = moment / (1 - tables.BETA2**step)
        weight = weight - 0.1 * dense.grad / (corrected.sqrt() + tables.EPSILON)
        (table(tokens) - wanted).square().mean().backward()
        table.learn(tokens, 1.0)
        assert torch.allclose(table.weight, weight, atol=1e-4)
    assert (weight != 0).any() and (weight == 0).any()


def test_a_step_touches_only_rows_that_were_looked_up(tables: ModuleType):
    table = made(tables)
    table.open(B, T)
    tokens, wanted = batch(1)
    (table(tokens) - wanted).square().mean().backward()
    table.learn(tokens, 1.0)
    touched = torch.zeros(len(table.weight), dtype=torch.bool)
    touched[table.index(tokens).flatten()] = True
    assert (table.weight[touched] != 0).all() and (table.weight[~touched] == 0).all()


def test_opened_again_it_has_forgotten(tables: ModuleType):
    table = made(tables)
    moved = []
    for _ in range(2):
        table.weight.zero_()
        table.open(B, T)
        tokens, wanted = batch(1)
        (table(tokens) - wanted).square().mean().backward()
        table.learn(tokens, 1.0)
        moved.append(table.weight.clone())
    assert torch.equal(*moved)


def test_layers_and_halves_hash_on_their_own(tables: ModuleType):
    rows = 2**12
    tokens = torch.randint(0, 8192, (4, 4096), generator=torch.Generator().manual_seed(1))
    indices = [made(tables, number=number, rows=rows).index(tokens) for number in (0, 1)]
    columns = [index[..., half] % rows for index in indices for half in range(2)]
    for at, first in enumerate(columns):
        assert first.min() >= 0 and first.unique().numel() > 0.95 * rows
        for second in columns[at + 1 :]:
            assert (first == second).float().mean() < 3 / rows  # no more than by chance


def test_a_row_is_found_by_its_last_tokens_alone(tables: ModuleType):
    tokens, _ = batch(1)
    other = tokens.clone()
    other[:, 0] += 1
    for order in (2, 3):
        table = made(tables, order=order)
        same = table.index(tokens) == table.index(other)
        assert same[:, order:].all() and not same[:, 0].all()


def test_scoring_reads_the_table_and_no_sink(tables: ModuleType):
    table = made(tables)
    table.open(B, T)
    table.weight.normal_()
    tokens, _ = batch(1)
    assert not table.eval()(tokens).requires_grad
    assert torch.equal(table.eval()(tokens), table.train()(tokens).detach())


def test_followers_are_what_came_after_the_last_equal_tokens():
    with play.loaded(play.changed(CATALOGUE["induction"], "modern")) as modules:
        followers = modules["model"].followers
    tokens = torch.tensor([[5, 6, 7, 5, 6, 8, 5, 6, 9]])
    assert followers(tokens, 2).tolist() == [[0, 0, 0, 0, 7, 0, 0, 8, 0]]
    assert followers(tokens, 1).tolist() == [[0, 0, 0, 6, 7, 0, 6, 8, 0]]
    random = torch.randint(1, 5, (2, 40), generator=torch.Generator().manual_seed(1))
    for length in (1, 2, 3):
        assert followers(random, length).tolist() == [naive_followers(row, length) for row in random.tolist()]


def naive_followers(row: list[int], length: int) -> list[int]:
    padded = [0] * (length - 1) + row
    found = []
    for at in range(len(row)):
        here = padded[at : at + length]
        earlier = [p for p in range(at) if padded[p : p + length] == here]
        found.append(row[earlier[-1] + 1] if earlier else 0)
    return found
