"""The gradient of an embedding table without atomics: ids are sorted, and one program sums what belongs to a row.

Bytes: gradients read once, 2 an element; the table cleared, 2 an element, and the rows seen written once more. Sums
stay in float32 registers, where index_add needs a float32 table in memory (4 an element cleared, 4 added to, 4 read),
and adds frequent rows one after the other. A program begins where an id does in the sorted order, takes a few visits
first, as most ids have, then many at a time; all programs but the first of an id end at once. Sums are in the order of
the tokens, the same every time. Sorting first is how torch's own embedding backward does it.
"""

import torch
import triton
import triton.language as tl

FEW, MANY = 4, 32  # visits that are summed at a time
COLUMNS = 256


@triton.jit
def add_visits(
    total, key, start, keys, order, grad_output, count, column, width, inside, VISITS: tl.constexpr
):  # fmt: skip
    """The sum with the next visits, and whether all VISITS were to the key, so that more may follow."""
    place = start + tl.arange(0, VISITS)
    same = tl.load(keys + place, mask=place < count, other=-1) == key
    token = tl.load(order + place, mask=same, other=0)
    rows = tl.load(grad_output + token[:, None] * width + column[None, :], mask=same[:, None] & inside, other=0.0)
    return total + tl.sum(rows.to(tl.float32), axis=0), tl.sum(same.to(tl.int32), axis=0) == VISITS


@triton.jit
def embedding_gradient(
    keys, order, grad_output, grad_table, count, width,
    FEW: tl.constexpr, MANY: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(0)
    key = tl.load(keys + start)
    if key != tl.load(keys + start - 1, mask=start > 0, other=-1):
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        inside = (column < width)[None, :]
        total = tl.zeros((COLUMNS,), tl.float32)
        total, more = add_visits(total, key, start, keys, order, grad_output, count, column, width, inside, FEW)
        start += FEW
        while more:
            total, more = add_visits(total, key, start, keys, order, grad_output, count, column, width, inside, MANY)
            start += MANY
        tl.store(grad_table + key * width + column, total.to(tl.bfloat16), mask=column < width)


def run(grad_output: torch.Tensor, ids: torch.Tensor, table_rows: int) -> torch.Tensor:
    """grad_output (tokens, width), bfloat16, and ids (tokens,), int64, to the gradient (table_rows, width)."""
    grad_output = grad_output.contiguous()
    count, width = grad_output.shape
    grad_table = torch.zeros((table_rows, width), dtype=grad_output.dtype, device=grad_output.device)
    keys, order = ids.sort(stable=True)
    embedding_gradient[(count, triton.cdiv(width, COLUMNS))](
        keys, order, grad_output, grad_table, count, width, FEW=FEW, MANY=MANY, COLUMNS=COLUMNS, num_warps=2
    )
    return grad_table
