"""RMSProp on those rows of a table that a step has seen: the optimizer of hashed n-gram tables and large embeddings.

`RowRMSProp` trains the tables of `ngram_values.py` beside this file; `row_update` is one step of one table. Stands
alone: imports torch, and triton where it is there.

    tables = RowRMSProp([table, ...])
    for table in tables.tables: table.open(batch * length)    # once, before training
    loss.backward(); tables.collect(tokens)                   # after the backward pass of these tokens, once or oftener
    tables.step(learning_rate)

Rows that a step has not seen need nothing. Their gradient is 0, so RMSProp (Tieleman and Hinton 2012; no momentum, no
weight decay) leaves them and only lets their second moment decay, and that is made up for when they are seen again: a
row keeps the logarithm of the decay up to its last visit. So the sparse update computes what the dense one does, to
rounding. `by_visits` gives each row a clock of its own instead, so that rare rows keep their second moment.

What there is to gain, with N = 131,072 tokens a step and two tables a layer of 2^19 rows of 256 bfloat16: a dense
update clears, fills and reads the gradients, and reads and writes weights and moments, 0.54 GB each, in float32 twice
that: 3 to 5 GB a layer, 1 to 1.6 ms at 3 TB/s. This one reads the gradients of N tokens, 0.13 GB, and reads and writes
the rows seen, at most 2 N and in text far fewer. Sorting the keys, 262,144 of 32 bits, comes on top.

Shapes: N tokens, K tables joined to one of K R rows, W width of a row.
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

BETA2 = 0.999
EPSILON = 1e-10
_LIBRARY = __name__.replace(".", "_")  # copies of this file in one process define operators of their own


class RowRMSProp:
    """RMSProp without momentum for the tables, on the rows that the step has seen."""

    def __init__(
        self,
        tables: list[nn.Module],
        learning_rate: float = 0.6,
        beta2: float = BETA2,
        epsilon: float = EPSILON,
        per_row: bool = False,
        by_visits: bool = False,
    ):
        """per_row: one second moment a row, its mean over the row, rather than one an element (float32 either way)."""
        self.tables = list(tables)
        self.learning_rate, self.beta2, self.epsilon, self.by_visits = learning_rate, beta2, epsilon, by_visits
        self.waiting: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.tables]  # places and gradients
        self.log_decay = 0.0  # of the second moment, since the first step
        self.moments = [torch.zeros_like(t.table[:, :1] if per_row else t.table, dtype=torch.float32) for t in tables]
        self.clocks = [torch.zeros_like(t.table[:, 0], dtype=torch.float32) for t in tables]

    def collect(self, tokens: Tensor) -> None:
        """Take the gradients that the backward pass of tokens [B, T] has left in the tables' slots."""
        for table, waiting in zip(self.tables, self.waiting, strict=True):
            waiting.append((table.places(tokens), table.slot.grad))
            table.slot.grad = None

    def step(self, learning_rate: float | None = None, beta2: float | None = None) -> None:
        """Update the tables by what was collected since the last step."""
        rate = self.learning_rate if learning_rate is None else learning_rate
        beta2 = self.beta2 if beta2 is None else beta2
        self.log_decay += math.log(beta2)
        parts = zip(self.tables, self.moments, self.clocks, self.waiting, strict=True)
        for table, moments, clocks, waiting in parts:
            places, gradients = waiting[0] if len(waiting) == 1 else map(torch.cat, zip(*waiting, strict=True))
            waiting.clear()
            row_update(
                table.table, moments, clocks, places, gradients,
                rate, beta2, self.log_decay, self.epsilon, self.by_visits,
            )  # fmt: skip


@torch.no_grad()
def naive_row_update(
    table: Tensor, moments: Tensor, clocks: Tensor, rows: Tensor, gradients: Tensor,
    learning_rate: float, beta2: float, log_decay: float, epsilon: float = EPSILON, by_visits: bool = False,
) -> None:  # fmt: skip
    """RMSProp on the rows that were looked up, in place.

    table [K R, W]; moments float32 [K R, W], or [K R, 1] for one a row; clocks float32 [K R], zeros at first: the
    logarithm of the decay of the moments up to the row's last visit. rows int [N, K], gradients [N, K W] of what was
    looked up; those of a row are summed. log_decay: the sum of log(beta2) over all steps, this one included.
    """
    seen, inverse = rows.flatten().long().unique(return_inverse=True)
    total = torch.zeros(len(seen), table.size(1), dtype=moments.dtype, device=table.device)
    total.index_add_(0, inverse, gradients.reshape(-1, table.size(1)).to(moments.dtype))
    before = clocks[seen]
    now = before + math.log(beta2) if by_visits else torch.full_like(before, log_decay)
    square = total.square()
    if moments.size(1) == 1:
        square = square.mean(dim=1, keepdim=True)
    moment = torch.exp(now - before).unsqueeze(1) * moments[seen] + (1 - beta2) * square
    moments[seen], clocks[seen] = moment, now
    corrected = moment / (1 - torch.exp(now)).unsqueeze(1)
    table[seen] = (table[seen] - learning_rate * total / (corrected.sqrt() + epsilon)).to(table.dtype)


@torch.no_grad()
def row_update(
    table: Tensor, moments: Tensor, clocks: Tensor, rows: Tensor, gradients: Tensor,
    learning_rate: float, beta2: float, log_decay: float, epsilon: float = EPSILON, by_visits: bool = False,
) -> None:  # fmt: skip
    """As the naive one. Sorts the rows, then one program sums and updates each; the host waits for nothing."""
    if not _fast(table):
        naive_row_update(table, moments, clocks, rows, gradients, learning_rate, beta2, log_decay, epsilon, by_visits)
    else:
        _update_rows(table, moments, clocks, rows, gradients, learning_rate, beta2, log_decay, epsilon, by_visits)


def _jit(kernel):  # one build for all numbers of visits
    return triton.jit(kernel, do_not_specialize=("count",)) if triton else kernel


@_jit
def _add_visits(total, key, start, keys, order, gradients, count, column, WIDTH: tl.constexpr, VISITS: tl.constexpr):
    """Add the gradients of the next visits to a row; whether all VISITS were visits to it, so that more may follow."""
    place = start + tl.arange(0, VISITS)
    same = tl.load(keys + place, mask=place < count, other=-1) == key
    visit = tl.load(order + place, mask=same, other=0).to(tl.int64)
    inside = same[:, None] & (column < WIDTH)[None, :]
    rows = tl.load(gradients + visit[:, None] * WIDTH + column[None, :], mask=inside, other=0.0)
    return total + tl.sum(rows.to(tl.float32), 0), tl.sum(same.to(tl.int32), 0) == VISITS


@_jit
def _update_kernel(
    table, moments, clocks, keys, order, gradients, count, learning_rate, beta2, log_beta2, log_decay, epsilon,
    PER_ROW: tl.constexpr, BY_VISITS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr,
    FEW: tl.constexpr, MANY: tl.constexpr,
):  # fmt: skip
    """One place in the sorted keys a program: where a row's visits begin, sum their gradients and update the row.

    Most rows are visited once or twice in a step and some thousands of times: FEW at first, then MANY at a time.
    """
    start = tl.program_id(0)
    key = tl.load(keys + start)
    before = tl.load(keys + start - 1, mask=start > 0, other=-1)
    if key != before:
        column = tl.arange(0, WIDE)
        inside = column < WIDTH
        row = key.to(tl.int64)
        total = tl.zeros((WIDE,), tl.float32)
        total, more = _add_visits(total, key, start, keys, order, gradients, count, column, WIDTH, FEW)
        start += FEW
        while more:
            total, more = _add_visits(total, key, start, keys, order, gradients, count, column, WIDTH, MANY)
            start += MANY
        last = tl.load(clocks + row)
        now = last + log_beta2 if BY_VISITS else log_decay
        decay = tl.exp(now - last)
        if PER_ROW:
            moment = decay * tl.load(moments + row) + (1 - beta2) * tl.sum(total * total, 0) / WIDTH
            tl.store(moments + row, moment)
        else:
            places = moments + row * WIDTH + column
            moment = decay * tl.load(places, mask=inside, other=0.0) + (1 - beta2) * total * total
            tl.store(places, moment, mask=inside)
        tl.store(clocks + row, now)
        root = tl.sqrt(moment / (1 - tl.exp(now)))
        places = table + row * WIDTH + column
        new = tl.load(places, mask=inside, other=0.0).to(tl.float32) - learning_rate * total / (root + epsilon)
        tl.store(places, new.to(table.dtype.element_ty), mask=inside)


INTERPRETED = triton is not None and not isinstance(_update_kernel, triton.JITFunction)
# TRITON_INTERPRET=1 plays the kernels on a CPU.
_DEVICES = () if triton is None else ("cuda", "cpu") if INTERPRETED else ("cuda",)
_FEW, _MANY = 4, 32  # visits summed at a time
_WARPS = 4


def _fast(tensor: Tensor) -> bool:
    return tensor.device.type in _DEVICES and tensor.dtype != torch.float64


@torch.library.custom_op(f"{_LIBRARY}::update_rows", mutates_args=("table", "moments", "clocks"))
def _update_rows(
    table: Tensor, moments: Tensor, clocks: Tensor, rows: Tensor, gradients: Tensor,
    learning_rate: float, beta2: float, log_decay: float, epsilon: float, by_visits: bool,
) -> None:  # fmt: skip
    width = table.size(1)
    keys, order = rows.flatten().sort()
    _update_kernel[(keys.numel(),)](
        table, moments, clocks, keys, order, gradients.contiguous(), keys.numel(),
        learning_rate, beta2, math.log(beta2), log_decay, epsilon,
        PER_ROW=moments.size(1) == 1 < width, BY_VISITS=by_visits, WIDTH=width, WIDE=triton.next_power_of_2(width),
        FEW=_FEW, MANY=_MANY, num_warps=_WARPS,
    )  # fmt: skip


@_update_rows.register_fake
def _(table, moments, clocks, rows, gradients, learning_rate, beta2, log_decay, epsilon, by_visits):
    return None
