"""What `python -m tests.gpu.kernels` checks and times, one function a part, at the sizes of training or tiny ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.nanochat.kernels import ngram_values as ngrams
from benchmarks.nanochat.kernels import relu_squared as mlp
from benchmarks.nanochat.kernels import row_update as updates
from benchmarks.nanochat.kernels import softcap_cross_entropy as losses
from tests.gpu.kernel_timing import Row, Size, compare, distance_of, errors, figure, there_and_back


def loss(size: Size) -> Row:
    """Softcap and cross entropy with its matmuls, forward and backward."""
    hidden, weight = size.drawn(size.count, size.width), size.drawn(size.vocabulary, size.width, scale=0.1)
    targets = size.tokens().flatten()
    few = targets[: size.checked]
    checks = {
        "linear": errors(
            lambda h, w: losses.linear_softcap_cross_entropy(h, w, few, chunk_rows=300),
            lambda h, w: losses.naive_linear_softcap_cross_entropy(h, w, few),
            [hidden[: size.checked], weight],
        ),
        "scores": errors(
            lambda h, w: losses.softcap_cross_entropy(h @ w.T, few),
            lambda h, w: losses.naive_linear_softcap_cross_entropy(h, w, few),
            [hidden[: size.checked], weight],
        ),
    }

    def naive(h: Tensor, w: Tensor) -> Tensor:
        return losses.naive_linear_softcap_cross_entropy(h, w, targets)

    def in_chunks(rows: int) -> Callable[[], list[Tensor]]:
        return there_and_back(
            lambda h, w: losses.linear_softcap_cross_entropy(h, w, targets, chunk_rows=rows), [hidden, weight]
        )

    arms: dict[str, Callable[[], object]] = {
        "eager": there_and_back(naive, [hidden, weight]),
        "compiled": there_and_back(compiled(size, naive), [hidden, weight]),
        "fast_from_scores": there_and_back(
            lambda h, w: losses.softcap_cross_entropy(h @ w.T, targets), [hidden, weight]
        ),
        **{
            f"inductor_{size.count // parts}_rows": _by_inductor(size, in_chunks(size.count // parts))
            for parts in (8, 4)
        },
        **{f"fast_{size.count // parts}_rows": in_chunks(size.count // parts) for parts in (16, 8, 4, 2, 1)},
        "three_matmuls": lambda: _three_matmuls(hidden.detach(), weight.detach()),
    }
    return {"checks": checks, "times": compare(size, arms)} | ({"tuning": _tune_loss(size)} if size.tune else {})


def _by_inductor(size: Size, arm: Callable[[], object]) -> Callable[[], object]:
    """The same chunks and matmuls, but what our kernel does is written in torch and compiled."""

    def plain(scores: Tensor, targets: Tensor, share: Tensor, softcap: float) -> tuple[Tensor, Tensor, Tensor]:
        tanh = 2 * torch.sigmoid(scores.float() * (2 / softcap)) - 1
        weights = (softcap * tanh).exp()
        total = weights.sum(dim=1, keepdim=True)
        is_target = torch.arange(scores.size(1), device=scores.device) == targets.unsqueeze(1)
        losses_of_rows = total.squeeze(1).log() - (softcap * tanh * is_target).sum(dim=1)
        gradient = (weights / total - is_target.float()) * (1 - tanh * tanh) * share
        return losses_of_rows, total, gradient.to(scores.dtype)

    made, shipped = compiled(size, plain), losses._losses

    def inductor(
        scores: Tensor, targets: Tensor, share: Tensor, softcap: float, divisor: float, in_place: bool
    ) -> tuple[Tensor, Tensor]:
        losses_of_rows, total, gradient = made(scores, targets, share, softcap)
        scores.set_(gradient)
        return losses_of_rows, total

    def once() -> object:
        losses._losses = inductor
        try:
            return arm()
        finally:
            losses._losses = shipped

    return once


def _three_matmuls(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    scores = hidden @ weight.T
    return scores @ weight, scores.T @ hidden


def _tune_loss(size: Size) -> dict[str, Row]:
    """The kernel alone, in place, by warps a row. What it leaves is its next input: the time does not depend on it."""
    scores = size.drawn(size.count, size.vocabulary).detach()
    targets = size.tokens().flatten()
    share, shipped = losses._share_of_a_row(targets), losses._warps

    def with_warps(warps: int) -> Callable[[], object]:
        def arm() -> object:
            losses._warps = lambda vocabulary: warps
            try:
                return losses._losses(scores, targets, share, 15.0, 15.0, in_place=True)
            finally:
                losses._warps = shipped

        return arm

    return compare(size, {f"{warps} warps": with_warps(warps) for warps in (4, 8, 16, 32)})


def compiled(size: Size, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """By inductor on a GPU; its CPU code says nothing here, so the dry run only captures the graph."""
    return torch.compile(function, fullgraph=True, backend="inductor" if size.device == "cuda" else "aot_eager")


def two_layers(size: Size) -> Row:
    """Linear, squared ReLU, linear: forward alone, and forward and backward."""
    x = size.drawn(size.count, size.width)
    into = size.drawn(size.hidden, size.width, scale=size.width**-0.5)
    out = size.drawn(size.width, size.hidden, scale=size.hidden**-0.5)
    few = x[: size.checked]
    checks = {
        "mlp": errors(mlp.relu_squared_mlp, mlp.naive_relu_squared_mlp, [few, into, out]),
        "linear": errors(mlp.linear_relu_squared, mlp.naive_linear_relu_squared, [few, into]),
        "shifted": errors(
            lambda a, w: mlp.linear_relu_squared(a, w, 0.5),
            lambda a, w: mlp.naive_linear_relu_squared(a, w, 0.5),
            [few, into],
        ),
    }
    naive = compiled(size, mlp.naive_relu_squared_mlp)
    apart = compiled(size, lambda a, w, v: mlp.linear_relu_squared(a, w) @ v.T)
    together = compiled(size, mlp.relu_squared_mlp)
    constants = [t.detach() for t in (x, into, out)]
    arms: dict[str, Callable[[], object]] = {
        "eager": there_and_back(mlp.naive_relu_squared_mlp, [x, into, out]),
        "compiled": there_and_back(naive, [x, into, out]),
        "fast_linear_compiled": there_and_back(apart, [x, into, out]),
        "fast_mlp": there_and_back(mlp.relu_squared_mlp, [x, into, out]),
        "fast_mlp_compiled": there_and_back(together, [x, into, out]),
        "forward_compiled": lambda: naive(*constants),
        "forward_fast": lambda: mlp.relu_squared_mlp(*constants),
        "matmul_alone": lambda: constants[0] @ constants[1].T,
        "fast_linear_alone": lambda: mlp.linear_relu_squared(*constants[:2]),
    }
    return {"checks": checks, "times": compare(size, arms)} | ({"tuning": _tune_tiles(size)} if size.tune else {})


def _tune_tiles(size: Size) -> dict[str, dict[str, Row]]:
    x = size.drawn(size.count, size.width).detach()
    into = size.drawn(size.hidden, size.width, scale=size.width**-0.5).detach()
    out, post = into.T.contiguous(), mlp._linear(x, into, 0.0)
    tiles = [t for t in mlp.TILES if size.device == "cuda"] or [mlp.Tile(32, 32, 16, 4, 2, 1, halves=True)]
    return {
        "forward": compare(size, {str(tuple(t)): lambda t=t: mlp._launch(x, into, None, 0.0, t) for t in tiles}),
        "backward": compare(size, {str(tuple(t)): lambda t=t: mlp._launch(x, out, post, 0.0, t) for t in tiles}),
    }  # fmt: skip


def looked_up(size: Size, order: int) -> tuple[list[Tensor], Tensor]:
    """value, gates and slot, the joined table of one layer, and the rows of a step's tokens."""
    table = ngrams.NgramTable(1, order, size.width, size.heads, rows=size.table_rows, dtype=size.dtype)
    table = table.to(size.device)
    inputs = [size.drawn(size.count, size.width), size.drawn(size.count, size.heads)]
    slot = torch.zeros_like(inputs[0]).requires_grad_()
    return [*inputs, slot, table.table], table.places(size.tokens())


def values(size: Size) -> Row:
    """Rows of one layer looked up, gated and added: forward and backward, the gradient of the rows included."""
    (value, gates, slot, table), places = looked_up(size, order=2)
    few = places[: size.checked]
    small, small_gates, small_slot = (t[: size.checked] for t in (value, gates, slot))
    check = errors(
        lambda v, g, t, s: ngrams.ngram_values(v, g, t, few, s),
        lambda v, g, t, s: ngrams.naive_ngram_values(v, g, t, few, s),
        [small, small_gates, table[: int(few.max()) + 1], small_slot],
    )

    def naive(v: Tensor, g: Tensor, s: Tensor) -> Tensor:
        return ngrams.naive_ngram_values(v, g, table, places, s)

    def fast(v: Tensor, g: Tensor, s: Tensor) -> Tensor:
        return ngrams.ngram_values(v, g, table, places, s)

    tokens, multipliers = size.tokens(), ngrams.hash_multipliers(1, 2).to(size.device)
    arms: dict[str, Callable[[], object]] = {
        "eager": there_and_back(naive, [value, gates, slot]),
        "compiled": there_and_back(compiled(size, naive), [value, gates, slot]),
        "fast": there_and_back(fast, [value, gates, slot]),
        "forward_fast": lambda: fast(value.detach(), gates.detach(), None),
        "hash_eager": lambda: ngrams.hash_rows(tokens, multipliers, size.table_rows),
    }
    tuning = {"tuning": _tune_values(size, arms["fast"])} if size.tune else {}
    return {"checks": {"values": check}, "times": compare(size, arms)} | tuning


def _tune_values(size: Size, arm: Callable[[], object]) -> dict[str, Row]:
    shipped = ngrams._TOKENS, ngrams._WARPS

    def with_shape(tokens: int, warps: int) -> Callable[[], object]:
        def once() -> object:
            ngrams._TOKENS, ngrams._WARPS = tokens, warps
            try:
                return arm()
            finally:
                ngrams._TOKENS, ngrams._WARPS = shipped

        return once

    shapes = [(16, 2), (16, 4), (32, 4), (64, 4), (64, 8)]
    return compare(size, {f"{tokens} tokens, {warps} warps": with_shape(tokens, warps) for tokens, warps in shapes})


def row_updates(size: Size) -> Row:
    """One step of RMSProp on the tables of one layer: dense, by torch on the rows seen, and by the kernel."""
    report: Row = {}
    for order in (2, 3):
        (value, _, _, table), places = looked_up(size, order)
        gradients = value.detach()
        distinct, visits = places.unique(return_counts=True)
        facts = {"visits": places.numel(), "rows_seen": len(distinct), "most_visits": int(visits.max())}
        state = {kind: _state(table, per_row=kind == "per_row") for kind in ("per_element", "per_row")}
        arguments = (places, gradients, 1e-4, 0.999, math.log(0.999))
        dense = compiled(size, _dense_update)
        arms: dict[str, Callable[[], object]] = {
            "dense_compiled": lambda: dense(*state["per_element"][:2], places, gradients),  # noqa: B023
            "naive_rows": lambda: updates.naive_row_update(*state["per_element"], *arguments),  # noqa: B023
            "fast_per_element": lambda: updates.row_update(*state["per_element"], *arguments),  # noqa: B023
            "fast_per_row": lambda: updates.row_update(*state["per_row"], *arguments),  # noqa: B023
            "sort_alone": lambda: places.flatten().sort(),  # noqa: B023
        }
        tuning = {"tuning": _tune_rows(size, arms["fast_per_element"])} if size.tune else {}
        report[f"order_{order}"] = facts | {"checks": _row_checks(size), "times": compare(size, arms)} | tuning
    return report


def _state(table: Tensor, per_row: bool) -> tuple[Tensor, Tensor, Tensor]:
    moments = torch.zeros_like(table[:, :1] if per_row else table, dtype=torch.float32)
    return table.clone(), moments, torch.zeros(len(table), device=table.device)


def _dense_update(table: Tensor, moments: Tensor, places: Tensor, gradients: Tensor) -> Tensor:
    """RMSProp on all rows of the table."""
    of_rows = gradients.unflatten(1, (places.size(1), -1))
    dense = torch.ops.aten.embedding_dense_backward(of_rows, places.long(), table.size(0), -1, False).float()
    moments.mul_(0.999).addcmul_(dense, dense, value=0.001)
    table.sub_((1e-4 * dense / ((moments / 0.001).sqrt() + updates.EPSILON)).to(table.dtype))
    return table


def _row_checks(size: Size) -> Row:
    """The kernel's rows after three steps against float64, in float32, few rows so that all are seen often."""
    table = torch.randn(2 * 97, 64, device=size.device)
    found: Row = {}
    for per_row in (False, True):
        ways = []
        for update, kind in ((updates.row_update, torch.float32), (updates.naive_row_update, torch.float64)):
            ours, moments, clocks = (t.to(kind) for t in _state(table, per_row))
            drawing = torch.Generator(size.device).manual_seed(3)
            for step in range(3):
                places = torch.randint(0, 97, (size.checked, 2), generator=drawing, device=size.device)
                places[:, 1] += 97
                gradients = torch.randn(size.checked, 128, generator=drawing, device=size.device)
                decay = (step + 1) * math.log(0.99)
                update(ours, moments, clocks, places.int(), gradients.to(kind), 0.1, 0.99, decay)
            ways.append(ours.double())
        distance = distance_of(*ways)
        found["per_row" if per_row else "per_element"] = {"fast": figure(distance), "sound": distance < 1e-4}
    return found


def _tune_rows(size: Size, arm: Callable[[], object]) -> dict[str, Row]:
    shipped = updates._FEW, updates._MANY, updates._WARPS

    def with_shape(few: int, many: int, warps: int) -> Callable[[], object]:
        def once() -> object:
            updates._FEW, updates._MANY, updates._WARPS = few, many, warps
            try:
                return arm()
            finally:
                updates._FEW, updates._MANY, updates._WARPS = shipped

        return once

    shapes = [(1, 16, 1), (2, 16, 2), (4, 16, 2), (4, 32, 4), (4, 64, 4), (8, 64, 4)]
    return compare(size, {str(shape): with_shape(*shape) for shape in shapes})


def ngram_step(size: Size) -> Row:
    """What a step pays for tables in all layers: lookups, gradients, updates. Tables are made anew for each way."""
    tokens = size.tokens()
    shape = (size.batch, size.length)
    value, gates = size.drawn(*shape, size.width), size.drawn(*shape, size.heads)
    of_value = size.drawn(*shape, size.width).detach()
    report: Row = {"layers": size.layers, "rows_a_table": size.table_rows}
    for name, way in (("sparse", _sparse_step), ("dense", _dense_step)):
        layers = [
            ngrams.NgramTable(layer, 2, size.width, size.heads, rows=size.table_rows, dtype=size.dtype).to(size.device)
            for layer in range(size.layers)
        ]
        before = torch.cuda.memory_allocated() if size.device == "cuda" else 0
        arm = way(size, layers, tokens, value, gates, of_value)
        report[name] = compare(size, {name: arm})[name]
        held = torch.cuda.memory_allocated() - before if size.device == "cuda" else 0
        report[name] |= {"held_gb": figure(held / 1e9)}  # type: ignore[operator]
        del layers, arm
    return report


def _sparse_step(
    size: Size, layers: list[ngrams.NgramTable], tokens: Tensor, value: Tensor, gates: Tensor, of_value: Tensor
) -> Callable[[], object]:
    optimizer = updates.RowRMSProp(layers, 1e-4)
    for table in layers:
        table.open(size.count, size.dtype)
    calls = [compiled(size, table) for table in layers]

    def arm() -> None:
        for call in calls:
            call(tokens, value, gates).backward(of_value)
        value.grad = gates.grad = None
        optimizer.collect(tokens)
        optimizer.step()

    return arm


def _dense_step(
    size: Size, layers: list[ngrams.NgramTable], tokens: Tensor, value: Tensor, gates: Tensor, of_value: Tensor
) -> Callable[[], object]:
    moments = [torch.zeros_like(table.table, dtype=torch.float32) for table in layers]
    flat, flat_gates = value.detach().flatten(0, 1).requires_grad_(), gates.detach().flatten(0, 1).requires_grad_()
    slot = torch.zeros_like(flat).requires_grad_()
    naive, update = compiled(size, ngrams.naive_ngram_values), compiled(size, _dense_update)

    def arm() -> None:
        for table, moment in zip(layers, moments, strict=True):
            places = table.places(tokens)
            naive(flat, flat_gates, table.table, places, slot).backward(of_value.flatten(0, 1))
            update(table.table, moment, places, slot.grad)
            flat.grad = flat_gates.grad = slot.grad = None

    return arm


PARTS: dict[str, Callable[[Size], Row]] = {
    "loss": loss, "mlp": two_layers, "values": values, "rows": row_updates, "ngram_step": ngram_step,
}  # fmt: skip
