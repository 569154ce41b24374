"""The GPU lane's kernels on a CPU, by Triton's interpreter, beside the naive way in float64.

The interpreter must be chosen before Triton is loaded, hence a process of its own: tests/test_kernels.py runs this file
there, with copies of the kernels, each alone in a folder. Sizes are odd on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import ngram_values as ngrams
import relu_squared as mlp
import row_update as updates
import softcap_cross_entropy as losses
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck

FEW = settings(max_examples=6, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))
SMALL = [mlp.Tile(32, 32, 16, 4, 2, 1, halves=True), mlp.Tile(16, 32, 16, 4, 2, 1, halves=False)]


def outcome(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """What a function of these tensors gives, and the gradients of a fixed weighted sum of it."""
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    output = function(*leaves)
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    (output * weights).sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def agree(fast: Callable[..., Tensor], naive: Callable[..., Tensor], inputs: list[Tensor], atol: float = 2e-5) -> None:
    """Value and gradients against the naive way in float64, and against the fast way under torch.compile."""
    plain = outcome(fast, inputs)
    for ours, exact in zip(plain, outcome(naive, [t.double() for t in inputs]), strict=True):
        torch.testing.assert_close(ours.double(), exact.double(), atol=atol, rtol=2e-5)


def agree_compiled(function: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(outcome(compiled, inputs), outcome(function, inputs))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def test_the_interpreter_runs_the_kernels() -> None:
    assert all(module.INTERPRETED for module in (losses, ngrams, updates, mlp))


@FEW
@given(
    rows=st.sampled_from([1, 7, 21]),
    vocabulary=st.sampled_from([5, 63, 64, 257]),
    softcap=st.sampled_from([0.0, 2.0, 15.0, 50.0]),
    divisor=st.sampled_from([None, 3.0]),
    chunk_rows=st.sampled_from([8, 64]),
    seed=st.integers(0, 99),
)
def test_loss_and_gradients_are_the_naive_ones(
    rows: int, vocabulary: int, softcap: float, divisor: float | None, chunk_rows: int, seed: int
) -> None:
    hidden, weight = 2 * drawn(rows, 9, seed=seed), drawn(vocabulary, 9, seed=seed)
    targets = torch.randint(-1, vocabulary, (rows,), generator=torch.Generator().manual_seed(seed))
    agree(
        lambda h, w: losses.linear_softcap_cross_entropy(h, w, targets, softcap, divisor, chunk_rows),
        lambda h, w: losses.naive_linear_softcap_cross_entropy(h, w, targets, softcap, divisor),
        [hidden, weight],
    )
    agree(
        lambda s: losses.softcap_cross_entropy(s, targets, softcap, divisor),
        lambda s: losses.naive_softcap_cross_entropy(s, targets, softcap, divisor),
        [hidden @ weight.T],
    )


def test_naive_loss_is_torchs_own() -> None:
    scores, targets = 9 * drawn(33, 21), torch.arange(33) % 22 - 1
    expected = torch.nn.functional.cross_entropy(4 * torch.tanh(scores / 4), targets, ignore_index=-1)
    torch.testing.assert_close(losses.naive_softcap_cross_entropy(scores, targets, 4.0), expected)


def test_loss_without_gradients_is_the_same() -> None:
    hidden, weight, targets = drawn(7, 8), drawn(33, 8), torch.arange(7)
    with torch.no_grad():
        fast = losses.linear_softcap_cross_entropy(hidden, weight, targets, chunk_rows=4)
    torch.testing.assert_close(fast, losses.naive_linear_softcap_cross_entropy(hidden, weight, targets))


def test_weights_kept_in_float32_get_their_gradient_so() -> None:
    hidden, weight, targets = drawn(7, 8).half(), drawn(33, 8), torch.arange(7)
    for fast, naive in (
        (losses.linear_softcap_cross_entropy, losses.naive_linear_softcap_cross_entropy),
        (lambda x, w, t: mlp.linear_relu_squared(x, w[:32]), lambda x, w, t: mlp.naive_linear_relu_squared(x, w[:32])),
    ):
        ours, right = (outcome(lambda x, w, way=way: way(x, w, targets), [hidden, weight]) for way in (fast, naive))
        assert [t.dtype for t in ours] == [t.dtype for t in right] and ours[2].dtype == torch.float32
        torch.testing.assert_close(ours, right, atol=2e-2, rtol=2e-2)


def test_huge_scores_and_no_targets_stay_finite() -> None:
    scores = 1e4 * drawn(5, 12)
    for softcap in (0.0, 15.0):
        value, gradient = outcome(
            lambda s, cap=softcap: losses.softcap_cross_entropy(s, torch.arange(5), cap), [scores]
        )
        assert value.isfinite() and gradient.isfinite().all()
    value, gradient = outcome(lambda s: losses.softcap_cross_entropy(s, torch.full((5,), -1)), [scores])
    assert value == 0 and not gradient.any()


def test_what_is_no_number_stays_none() -> None:
    """A loss that looks sane would hide a broken model."""
    scores = drawn(3, 12)
    scores[1, 4] = float("nan")
    for softcap in (0.0, 15.0):
        assert losses.softcap_cross_entropy(scores, torch.arange(3), softcap).isnan()
    x, weight_in, weight_out = drawn(8, 8).half(), drawn(32, 8).half(), drawn(8, 32).half()
    x[2, 3] = float("nan")
    assert mlp.relu_squared_mlp(x, weight_in, weight_out)[2].isnan().all()


def test_losses_go_through_torch_compile() -> None:
    targets = torch.arange(9) % 7

    def both(hidden: Tensor, weight: Tensor) -> Tensor:
        alone = losses.softcap_cross_entropy(hidden @ weight.T, targets)
        return alone + losses.linear_softcap_cross_entropy(2 * hidden, weight, targets)

    agree_compiled(both, [drawn(9, 8), drawn(33, 8)])
    hidden, weight = drawn(9, 8).requires_grad_(), drawn(33, 8).requires_grad_()
    opcheck(losses._linear_loss, (hidden, weight, targets, 15.0, 15.0, 4))
    opcheck(losses._scores_loss, ((hidden @ weight.T).detach().requires_grad_(), targets, 15.0, 15.0))


@FEW
@given(
    shape=st.sampled_from([(1,), (60,), (3, 21)]),
    width=st.sampled_from([8, 24]),
    hidden=st.sampled_from([4, 40, 72]),
    shift=st.sampled_from([0.0, 0.5]),
    tiles=st.permutations(SMALL),
)
def test_mlp_and_gradients_are_the_naive_ones(
    shape: tuple[int, ...], width: int, hidden: int, shift: float, tiles: list[mlp.Tile]
) -> None:
    mlp.FORWARD_TILE, mlp.BACKWARD_TILE = tiles
    x, into, out = drawn(*shape, width), drawn(hidden, width) / 4, drawn(width, hidden) / 4
    agree(lambda *t: mlp.relu_squared_mlp(*t, shift), lambda *t: mlp.naive_relu_squared_mlp(*t, shift), [x, into, out])
    agree(lambda *t: mlp.linear_relu_squared(*t, shift), lambda *t: mlp.naive_linear_relu_squared(*t, shift), [x, into])


def test_widths_that_the_kernel_cannot_take_go_the_naive_way() -> None:
    x, weight = drawn(5, 7), drawn(9, 7)
    assert torch.equal(mlp.linear_relu_squared(x, weight), mlp.naive_linear_relu_squared(x, weight))


def test_operands_may_lie_anywhere() -> None:
    mlp.FORWARD_TILE, mlp.BACKWARD_TILE = SMALL
    x, weight = drawn(1 + 11 * 8)[1:].view(11, 8), drawn(8, 24).T
    assert torch.equal(mlp.linear_relu_squared(x, weight), mlp.linear_relu_squared(x.clone(), weight.contiguous()))


def test_mlp_goes_through_torch_compile() -> None:
    mlp.FORWARD_TILE, mlp.BACKWARD_TILE = SMALL
    inputs = [drawn(2, 11, 8), drawn(24, 8), drawn(8, 24)]
    agree_compiled(mlp.relu_squared_mlp, inputs)
    agree_compiled(mlp.linear_relu_squared, inputs[:2])
    x, into, out = inputs[0][0].requires_grad_(), inputs[1].requires_grad_(), inputs[2].requires_grad_()
    opcheck(mlp._linear, (x, into, 0.5))
    opcheck(mlp._mlp, (x, into, out, 0.5))


def looked_up(count: int, heads: int, head: int, tables: int, rows: int, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """value, gates, joined table and slot; and rows of the joined table."""
    width = heads * head
    drawing = torch.Generator().manual_seed(seed)
    places = torch.randint(0, rows, (count, tables), generator=drawing) + rows * torch.arange(tables)
    parts = [drawn(count, width), drawn(count, heads), drawn(tables * rows, width // tables), torch.zeros(count, width)]
    return parts, places.int()


@FEW
@given(
    count=st.sampled_from([1, 7, 33]),
    shape=st.sampled_from([(2, 3, 2), (4, 8, 2), (3, 4, 1), (3, 4, 2)]),
    rows=st.sampled_from([1, 5, 11]),
)
def test_values_and_gradients_are_the_naive_ones(count: int, shape: tuple[int, int, int], rows: int) -> None:
    inputs, places = looked_up(count, *shape, rows)
    agree(
        lambda v, g, t, s: ngrams.ngram_values(v, g, t, places, s),
        lambda v, g, t, s: ngrams.naive_ngram_values(v, g, t, places, s),
        inputs,
    )


def test_values_go_through_torch_compile() -> None:
    inputs, places = looked_up(7, 4, 8, 2, 5)
    agree_compiled(lambda v, g, t, s: ngrams.ngram_values(2 * v, g, t, places, s), inputs)
    value, gates, table, slot = (t.requires_grad_() for t in inputs)
    opcheck(ngrams._add_rows, (value, gates, table, places, slot))


def test_strided_values_are_read_where_they_are() -> None:
    (value, gates, table, _), places = looked_up(7, 4, 8, 2, 5)
    wide = torch.cat((value, value, value), dim=1)[:, 32:64]
    assert torch.equal(
        ngrams.ngram_values(wide, gates, table, places), ngrams.ngram_values(value, gates, table, places)
    )


def test_gradients_of_several_passes_are_summed() -> None:
    tables = []
    for batches in ([[0, 1, 2, 3]], [[0, 1], [2, 3]]):
        torch.manual_seed(7)
        table = ngrams.NgramTable(1, 2, 8, heads=2, rows=5, dtype=torch.float32)
        table.open(4 * len(batches[0]))
        optimizer = updates.RowRMSProp([table], 0.1)
        tokens, value, gates = torch.arange(16).view(4, 4) % 7, drawn(4, 4, 8), drawn(4, 4, 2)
        for batch in batches:
            table(tokens[batch], value[batch], gates[batch]).square().sum().backward()
            optimizer.collect(tokens[batch])
        optimizer.step()
        tables.append(table.table)
    torch.testing.assert_close(*tables)


@FEW
@given(
    count=st.sampled_from([1, 21]),
    rows=st.sampled_from([1, 3, 50]),
    per_row=st.booleans(),
    by_visits=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rows_are_updated_as_the_naive_way_does(
    count: int, rows: int, per_row: bool, by_visits: bool, seed: int
) -> None:
    (_, _, table, _), _ = looked_up(count, 2, 6, 2, rows)
    results = []
    for update, kind in ((updates.row_update, torch.float32), (updates.naive_row_update, torch.float64)):
        ours, log_decay = table.to(kind, copy=True), 0.0
        moments = torch.zeros(2 * rows, 1 if per_row else 6, dtype=kind)
        clocks = torch.zeros(2 * rows, dtype=kind)
        for step in range(3):
            beta2 = 0.9 + 0.02 * step
            log_decay += math.log(beta2)
            _, places = looked_up(count, 2, 6, 2, rows, seed=seed + step)
            gradients = drawn(count, 12, seed=step).to(kind)
            update(ours, moments, clocks, places, gradients, 0.1, beta2, log_decay, by_visits=by_visits)
        results.append([t.double() for t in (ours, moments, clocks)])
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def test_seldom_seen_rows_are_trained_as_a_dense_optimizer_would() -> None:
    tables, rows, width = 2, 13, 8
    table = ngrams.NgramTable(3, 2, width, heads=4, rows=rows, tables=tables, dtype=torch.float32)
    table.open(10)
    optimizer = updates.RowRMSProp([table], learning_rate=0.1)
    dense, moment, log_decay = table.table.double(), torch.zeros(tables * rows, width // tables).double(), 0.0
    for step in range(8):
        beta2 = 0.9 if step < 4 else 0.95
        tokens = torch.randint(0, 3 + step, (2, 5), generator=torch.Generator().manual_seed(step))
        value, gates, target = (
            drawn(2, 5, width, seed=step),
            drawn(2, 5, 4, seed=step),
            drawn(2, 5, width, seed=99 + step),
        )
        (table(tokens, value, gates) * target).sum().backward()
        optimizer.collect(tokens)
        optimizer.step(beta2=beta2)
        parts = [t.double().flatten(0, 1) for t in (value, gates, target)]
        leaf = dense.clone().requires_grad_()
        (ngrams.naive_ngram_values(parts[0], parts[1], leaf, table.places(tokens)) * parts[2]).sum().backward()
        log_decay += math.log(beta2)
        moment = beta2 * moment + (1 - beta2) * leaf.grad**2
        dense -= 0.1 * leaf.grad / ((moment / (1 - math.exp(log_decay))).sqrt() + updates.EPSILON)
        assert table.slot.grad is None
    torch.testing.assert_close(table.table.double(), dense, atol=1e-4, rtol=1e-4)


def test_row_update_is_an_operator() -> None:
    (_, _, table, _), places = looked_up(9, 2, 6, 2, 5)
    arguments = (
        table,
        torch.zeros(10, 6),
        torch.zeros(10),
        places,
        drawn(9, 12),
        0.1,
        0.9,
        math.log(0.9),
        1e-10,
        False,
    )
    opcheck(updates._update_rows, arguments, test_utils=("test_schema", "test_faketensor"))


def test_a_table_trains_under_torch_compile_and_reloads() -> None:
    def trained(way: Callable[[ngrams.NgramTable], Callable[..., Tensor]]) -> ngrams.NgramTable:
        torch.manual_seed(5)
        table = ngrams.NgramTable(1, 3, 8, heads=2, rows=17, dtype=torch.float32)
        table.open(12)
        call, optimizer = way(table), updates.RowRMSProp([table], 0.1, per_row=True)
        for step in range(3):
            tokens = torch.randint(0, 9, (3, 4), generator=torch.Generator().manual_seed(step))
            call(tokens, drawn(3, 4, 8), drawn(3, 4, 2)).square().sum().backward()
            optimizer.collect(tokens)
            optimizer.step()
        return table

    eager = trained(lambda table: table)
    compiled = trained(lambda table: torch.compile(table, fullgraph=True, backend="aot_eager"))
    torch.testing.assert_close(eager.table, compiled.table)
    assert set(eager.state_dict()) == {"table"}
    fresh = ngrams.NgramTable(1, 3, 8, heads=2, rows=17, dtype=torch.float32)
    fresh.load_state_dict(eager.state_dict())
    with torch.no_grad():
        inputs = (torch.arange(8).view(2, 4), drawn(2, 4, 8), drawn(2, 4, 2))
        assert torch.equal(fresh(*inputs), eager(*inputs))


def test_hashes_are_causal_spread_and_different_in_each_layer() -> None:
    tokens = torch.randint(0, 8192, (4, 512), generator=torch.Generator().manual_seed(1))
    layers = [ngrams.hash_rows(tokens, ngrams.hash_multipliers(layer, 3), 1000) for layer in (1, 3)]
    for rows in layers:
        for table in range(2):
            within = rows[..., table] - 1000 * table
            assert within.min() >= 0 and within.max() < 1000
            # 2,048 draws of 1,000 rows hit 871 of them, give or take 9
            assert abs(within.unique().numel() - 871) < 50
    assert (layers[0] == layers[1]).float().mean() < 0.01
    changed = tokens.clone()
    changed[:, 300:] = 7
    again = ngrams.hash_rows(changed, ngrams.hash_multipliers(1, 3), 1000)
    assert torch.equal(layers[0][:, :300], again[:, :300]) and not torch.equal(layers[0], again)
    assert torch.equal(ngrams.hash_rows(tokens[:, :9], ngrams.hash_multipliers(1, 3), 1000), layers[0][:, :9])


def test_ngrams_look_back_and_stop_at_a_boundary() -> None:
    three = ngrams.hash_multipliers(2, 3)

    def last(*tokens: int, boundary: int | None = None) -> list[int]:
        return ngrams.hash_rows(torch.tensor([tokens]), three, 10**6, boundary)[0, -1].tolist()

    assert last(4, 5, 6) == last(9, 4, 5, 6) != last(5, 4, 6)
    assert last(6) == last(6, 6, 6)
    assert last(1, 2, 0, 6, boundary=0) == last(3, 3, 0, 6, boundary=0) != last(1, 2, 0, 6)
    assert last(1, 2, 0, boundary=0) == last(0, 0, 0)


def test_multipliers_are_odd_and_never_shared() -> None:
    parts = [ngrams.hash_multipliers(layer, order).flatten() for layer in range(12) for order in (2, 3)]
    numbers = torch.cat(parts)
    assert (numbers % 2 == 1).all() and len(numbers.unique()) == len(numbers)
