"""Hashed n-gram tables whose rows are added to attention's values through a gate: the lookup and its gradient.

`NgramTable` is one layer's tables as a module; `hash_rows` and `ngram_values` are its parts; `row_update.py` beside
this file trains the tables. Stands alone: imports torch, and triton where it is there.

    table = NgramTable(layer=1, order=2, width=512, heads=4)  # bigrams; order 3 for trigrams
    value = table(tokens, value, gates)                       # in the attention of that layer

Sources: Svenstrup et al. 2017, "Hash Embeddings" (several hashes a key, so that two keys seldom share all their
rows); records 62 and 83 of the modded-nanogpt speedrun (bigrams). Two tables a layer, hashes of each layer's own and
the gate are those of the nanochat search that Recursive described in 2026.

What there is to gain, with N = 131,072 tokens a step, C = 512 and rows of 256 bfloat16: the lookup reads 134 MB of rows
and as much of values, and writes as much: 0.13 ms at 3 TB/s, where separate operators (gather, join, scale, add) move
three times that. Backward it is the same again. Hashing moves 8 bytes a token and stays in plain torch.

Shapes: B batch, T positions, N = B T, H heads, D = C / H, C width, K tables, W = C / K, R rows a table.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU may go without, and takes the naive ways
    triton = None

ROWS = 2**19
TABLES = 2
_LIBRARY = __name__.replace(".", "_")  # copies of this file in one process define operators of their own


class NgramTable(nn.Module):
    """K tables of one layer over n-grams of one order, joined to [K R, W]. A buffer: other optimizers never see it."""

    def __init__(
        self,
        layer: int,
        order: int,
        width: int,
        heads: int,
        rows: int = ROWS,
        tables: int = TABLES,
        spread: float | None = None,
        dtype: torch.dtype = torch.bfloat16,
        boundary: int | None = None,
    ):
        """Uniform in +-spread, sqrt(3 / width) where not given; boundary as in hash_rows."""
        super().__init__()
        if width % heads or width % tables:
            raise ValueError(f"width {width} is no multiple of {heads} heads and of {tables} tables")
        spread = math.sqrt(3 / width) if spread is None else spread
        self.rows, self.boundary, self.heads = rows, boundary, heads
        table = torch.empty(tables * rows, width // tables, dtype=dtype)
        self.register_buffer("table", table.uniform_(-spread, spread))
        self.register_buffer("multipliers", hash_multipliers(layer, order, tables), persistent=False)
        self.register_buffer("slot", None, persistent=False)

    def open(self, count: int, dtype: torch.dtype | None = None) -> None:
        """Make the place where the backward pass of `count` tokens leaves the gradient of what was looked up.

        Of the type of the values. Only for training: without it the table is constant.
        """
        width = self.multipliers.size(0) * self.table.size(1)
        slot = torch.zeros(count, width, dtype=dtype or self.table.dtype, device=self.table.device)
        self.slot = slot.requires_grad_()

    def places(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] -> rows of the joined table, int32 [N, K]."""
        return hash_rows(tokens, self.multipliers, self.rows, self.boundary).flatten(0, 1)

    def forward(self, tokens: Tensor, value: Tensor, gates: Tensor) -> Tensor:
        """tokens [B, T], value [B, T, C], gates [B, T, H] before the sigmoid -> value [B, T, C]."""
        slot = self.slot if torch.is_grad_enabled() else None
        flat, flat_gates = value.flatten(0, 1), gates.flatten(0, 1)
        return ngram_values(flat, flat_gates, self.table, self.places(tokens), slot).view_as(value)


def hash_multipliers(layer: int, order: int, tables: int = TABLES) -> Tensor:
    """Odd numbers for hash_rows, int64 [K, order]: others for each layer, order and table (Steele et al. 2014)."""
    numbers = []
    for place in range(tables * order):
        state = ((layer * 64 + order) * 4096 + place + 1) * 0x9E3779B97F4A7C15 % 2**64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        state = (state ^ state >> 31) | 1
        numbers.append(state - 2**64 if state >= 2**63 else state)
    return torch.tensor(numbers, dtype=torch.int64).view(tables, order)


def hash_rows(tokens: Tensor, multipliers: Tensor, rows: int, boundary: int | None = None) -> Tensor:
    """Rows of the joined table for the n-gram that ends at each position: tokens [B, T] -> int32 [B, T, K].

    The exclusive or of multiples of the token and of each one before it (multiplicative hashing: Knuth 1973), its high
    bits folded down, modulo rows. Before the first position stands the first token; before a token equal to boundary
    stands boundary, so that documents do not meet.
    """
    positions = torch.arange(tokens.size(1), device=tokens.device)
    tokens = tokens.long()
    token = tokens
    mixed = token.unsqueeze(-1) * multipliers[:, 0]
    for lag in range(1, multipliers.size(1)):
        earlier = tokens[:, (positions - lag).clamp(min=0)]
        token = earlier if boundary is None else torch.where(token == boundary, token, earlier)
        mixed = mixed ^ (token.unsqueeze(-1) * multipliers[:, lag])
    mixed = (mixed ^ (mixed >> 32)) & (2**63 - 1)
    first = torch.arange(multipliers.size(0), device=tokens.device) * rows
    return (mixed % rows + first).int()


def naive_ngram_values(value: Tensor, gates: Tensor, table: Tensor, rows: Tensor, slot: Tensor | None = None) -> Tensor:
    """value + 2 sigmoid(gates) * what stands in the rows: the K rows of a token side by side, a gate for each head.

    value [N, C], gates [N, H], table [K R, W], rows int [N, K] -> [N, C]. slot [N, C] holds zeros and is added to what
    was looked up, so that its gradient is that of the rows looked up, and the table needs none.
    """
    found = table[rows].flatten(1)  # [N, C]
    if slot is not None:
        found = found + slot
    weights = 2 * torch.sigmoid(gates).unsqueeze(-1)  # [N, H, 1]
    return value + (weights * found.unflatten(1, (gates.size(1), -1))).flatten(1).to(value.dtype)


def ngram_values(value: Tensor, gates: Tensor, table: Tensor, rows: Tensor, slot: Tensor | None = None) -> Tensor:
    """As the naive one; what is in slot is not read. Differentiable in value, gates, slot, and densely in the table.

    The kernel takes heads that lie in one table each, so H must be a multiple of K.
    """
    heads, tables = gates.size(1), rows.size(1)
    if not _fast(value) or heads % tables or value.size(1) != tables * table.size(1) or value.size(1) % heads:
        return naive_ngram_values(value, gates, table, rows, slot)
    return _add_rows(value, gates, table, rows, slot)


def _jit(kernel):  # one build for all numbers of tokens, those of scoring too
    return triton.jit(kernel, do_not_specialize=("count",)) if triton else kernel


@_jit
def _add_kernel(
    value, gates, table, rows, out, count, value_stride, gates_stride, heads, tables,
    HEADS_A_TABLE: tl.constexpr, HEAD: tl.constexpr, WIDE: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """One head of TOKENS tokens: out = value + 2 sigmoid(gate) * row. WIDE is HEAD rounded up to a power of two."""
    head = tl.program_id(1)
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    column = tl.arange(0, WIDE)
    there = token < count
    inside = there[:, None] & (column < HEAD)[None, :]
    row = tl.load(rows + token * tables + head // HEADS_A_TABLE, mask=there, other=0).to(tl.int64)
    gate = 2 * tl.sigmoid(tl.load(gates + token * gates_stride + head, mask=there, other=0.0).to(tl.float32))
    within = row * (HEADS_A_TABLE * HEAD) + head % HEADS_A_TABLE * HEAD
    found = tl.load(table + within[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
    place = head * HEAD + column[None, :]
    old = tl.load(value + token[:, None] * value_stride + place, mask=inside, other=0.0).to(tl.float32)
    new = old + gate[:, None] * found
    tl.store(out + token[:, None] * (heads * HEAD) + place, new.to(out.dtype.element_ty), mask=inside)


@_jit
def _add_backward_kernel(
    of_out, gates, table, rows, of_gates, of_found, count, out_stride, gates_stride, heads, tables,
    HEADS_A_TABLE: tl.constexpr, HEAD: tl.constexpr, WIDE: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """The same head and tokens: the gradient of the gate, which reads the rows again, and that of the rows."""
    head = tl.program_id(1)
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    column = tl.arange(0, WIDE)
    there = token < count
    inside = there[:, None] & (column < HEAD)[None, :]
    row = tl.load(rows + token * tables + head // HEADS_A_TABLE, mask=there, other=0).to(tl.int64)
    share = tl.sigmoid(tl.load(gates + token * gates_stride + head, mask=there, other=0.0).to(tl.float32))
    within = row * (HEADS_A_TABLE * HEAD) + head % HEADS_A_TABLE * HEAD
    found = tl.load(table + within[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
    place = head * HEAD + column[None, :]
    gradient = tl.load(of_out + token[:, None] * out_stride + place, mask=inside, other=0.0).to(tl.float32)
    of_gate = 2 * share * (1 - share) * tl.sum(gradient * found, 1)
    tl.store(of_gates + token * heads + head, of_gate.to(of_gates.dtype.element_ty), mask=there)
    of_row = 2 * share[:, None] * gradient
    tl.store(of_found + token[:, None] * (heads * HEAD) + place, of_row.to(of_found.dtype.element_ty), mask=inside)


INTERPRETED = triton is not None and not isinstance(_add_kernel, triton.JITFunction)
# TRITON_INTERPRET=1 plays the kernels on a CPU.
_DEVICES = () if triton is None else ("cuda", "cpu") if INTERPRETED else ("cuda",)
_TOKENS = 32  # a program; times one head
_WARPS = 4


def _fast(tensor: Tensor) -> bool:
    return tensor.device.type in _DEVICES and tensor.dtype != torch.float64 and tensor.numel() > 0


def _side_by_side(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(1) == 1 else tensor.contiguous()


def _sizes(gates: Tensor, table: Tensor, rows: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid and the constants of both kernels that look rows up."""
    (count, heads), tables = gates.shape, rows.size(1)
    head = tables * table.size(1) // heads
    constants = {"HEADS_A_TABLE": heads // tables, "HEAD": head, "WIDE": triton.next_power_of_2(head)}
    return (triton.cdiv(count, _TOKENS), heads), {**constants, "TOKENS": _TOKENS, "num_warps": _WARPS}


@torch.library.custom_op(f"{_LIBRARY}::add_rows", mutates_args=())
def _add_rows(value: Tensor, gates: Tensor, table: Tensor, rows: Tensor, slot: Tensor | None) -> Tensor:
    """value + 2 sigmoid(gates) * rows: [N, C] in the type of value. slot is there for its gradient."""
    value, gates = _side_by_side(value), _side_by_side(gates)
    out = torch.empty_like(value, memory_format=torch.contiguous_format)
    grid, constants = _sizes(gates, table, rows)
    _add_kernel[grid](
        value, gates, table.contiguous(), rows.contiguous(), out,
        gates.size(0), value.stride(0), gates.stride(0), gates.size(1), rows.size(1), **constants,
    )  # fmt: skip
    return out


@_add_rows.register_fake
def _(value, gates, table, rows, slot):
    return torch.empty_like(value, memory_format=torch.contiguous_format)


@torch.library.custom_op(f"{_LIBRARY}::add_rows_backward", mutates_args=())
def _add_rows_backward(of_out: Tensor, gates: Tensor, table: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the gates, [N, H] in their type, and of what was looked up, [N, C] in the type of of_out."""
    of_out, gates = _side_by_side(of_out), _side_by_side(gates)
    of_gates = torch.empty_like(gates, memory_format=torch.contiguous_format)
    of_found = torch.empty_like(of_out, memory_format=torch.contiguous_format)
    grid, constants = _sizes(gates, table, rows)
    _add_backward_kernel[grid](
        of_out, gates, table.contiguous(), rows.contiguous(), of_gates, of_found,
        gates.size(0), of_out.stride(0), gates.stride(0), gates.size(1), rows.size(1), **constants,
    )  # fmt: skip
    return of_gates, of_found


@_add_rows_backward.register_fake
def _(of_out, gates, table, rows):
    plain = torch.contiguous_format
    return torch.empty_like(gates, memory_format=plain), torch.empty_like(of_out, memory_format=plain)


def _keep(ctx, inputs, output):
    _, gates, table, rows, _ = inputs
    ctx.save_for_backward(gates, table, rows)


def _backward(ctx, of_out):
    gates, table, rows = ctx.saved_tensors
    of_gates, of_found = _add_rows_backward(of_out, gates, table, rows)
    of_table = None
    if ctx.needs_input_grad[2]:
        of_rows = of_found.unflatten(1, (rows.size(1), -1)).to(table.dtype)
        of_table = torch.ops.aten.embedding_dense_backward(of_rows, rows.long(), table.size(0), -1, False)
    return of_out, of_gates, of_table, None, of_found if ctx.needs_input_grad[4] else None


_add_rows.register_autograd(_backward, setup_context=_keep)
