"""Hashed tables: vectors looked up by the last few tokens, trained row by row on what a batch touched.

A table is far larger than what one step touches, so no dense gradient of it ever exists: `forward` adds a zero (the
`sink`) to the rows that it looked up, the sink catches their gradient, and `learn` moves those rows alone.

Sources: modded-nanogpt records 62 and 71 (hashed bigrams, sparse gradients); Recursive 2026, First Steps Toward
Automated AI Research (two half-width tables a layer, a hash of its own for each, RMSProp without momentum or decay).
Shapes: B rows of the batch, T positions, W width of what is looked up, N = 2BT look-ups.
"""

import torch
import torch.nn.functional as F
from torch import nn

GROWTH = 0.5  # the step of a row grows with the steps so far to this power: 0.5 as RMSProp, 0 as Adagrad
EPSILON = 1e-12
WORD = 2**64  # numbers are taken modulo this


class HashedTable(nn.Module):
    """Two tables of `rows` vectors of half the width, each under a hash of its own of the last `order` tokens.

    `number` sets the hashes apart from those of other tables: two n-grams that share a row in one do not in the others.
    """

    def __init__(self, order, rows, width, rate, number):
        super().__init__()
        self.rows, self.rate = rows, rate
        self.multipliers = [[multiplier(number, half, lag) for lag in range(order)] for half in range(2)]
        # A buffer, so that the optimizer and averages of the other weights leave it alone. What was never seen adds 0.
        self.register_buffer("weight", torch.zeros(2 * rows, width // 2, dtype=torch.bfloat16))
        self.register_buffer("moment", None, persistent=False)  # of the gradient, summed over all steps
        self.register_buffer("steps", None, persistent=False)
        self.sink = None

    def index(self, tokens):  # [B, T] -> [B, T, 2], the row of each half
        halves = []
        for half, multipliers in enumerate(self.multipliers):
            key = tokens * multipliers[0]
            for lag, factor in enumerate(multipliers[1:], 1):
                key = key ^ (F.pad(tokens, (lag, -lag)) * factor)  # in front of a row stands token 0
            halves.append((key >> 24) % self.rows + half * self.rows)
        return torch.stack(halves, dim=-1)

    def forward(self, tokens):  # [B, T] -> [B, T, W]
        found = F.embedding(self.index(tokens), self.weight)  # [B, T, 2, W / 2]
        if self.training and self.sink is not None:
            found = found + self.sink.reshape(found.shape)
        return found.flatten(-2)

    def open(self, batch, length):
        """Get ready to learn from batches of this shape, and forget what was learned from others."""
        if self.sink is None:
            zero = torch.zeros((), dtype=self.weight.dtype, device=self.weight.device)
            self.sink = zero.expand(2 * batch * length, self.weight.size(1)).requires_grad_()
            self.moment = torch.zeros(self.weight.shape, device=self.weight.device)  # float32
            self.steps = torch.zeros((), device=self.weight.device)
        self.moment.zero_()
        self.steps.zero_()

    @torch.no_grad()
    def learn(self, tokens, factor):
        """One step on the rows that `tokens` looked up, after the backward pass through them."""
        gradient = self.sink.grad  # [N, W / 2]
        self.sink.grad = None
        self.steps += 1
        size = factor * self.rate * self.steps**GROWTH
        changes = compiled_row_changes if gradient.is_cuda else row_changes
        index, change = changes(self.moment, self.index(tokens).flatten(), gradient, size)
        self.weight.index_add_(0, index, change.to(self.weight.dtype))


def row_changes(moment, index, gradient, size):
    """RMSProp of the rows `index` [N] with gradients [N, W / 2]; equal to the dense one, which moves no row without
    gradient. The moment is the mean over all steps: at a thousand steps as good as a decay of 0.999.

    Returns rows [N], some of them several times, and what to add to each. Changes the moment in place.
    """
    place = torch.arange(index.numel(), device=index.device)
    index, order = index.sort()
    is_first = index != F.pad(index[:-1], (1, 0), value=-1)  # of those that are equal
    first = torch.where(is_first, place, 0).cummax(dim=0).values
    total = torch.zeros(gradient.shape, device=gradient.device)  # float32; equal ones are summed where the first stands
    total.index_add_(0, first, gradient[order].float())
    square = total.square()  # zero but where the first stands
    moment.index_add_(0, index, square)
    return index, -size * total / (moment[index].sqrt() + EPSILON)


compiled_row_changes = torch.compile(row_changes, fullgraph=True, dynamic=False)


def multiplier(number, half, lag):
    """An odd number of 64 bits, another one for each table, half and lag (SplitMix64: Steele et al. 2014)."""
    z = (1 + lag + 8 * (half + 2 * number)) * 0x9E3779B97F4A7C15 % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    z = (z ^ (z >> 31)) | 1
    return z - WORD if z >= WORD // 2 else z  # as int64


def tables(model):
    return [module for module in model.modules() if isinstance(module, HashedTable)]


def open_tables(model, batch, length):  # untimed: before the warm-up, and again to forget it
    for table in tables(model):
        table.open(batch, length)


def learn_tables(model, tokens, factor=1.0):  # [B, T], after each backward pass
    for table in tables(model):
        table.learn(tokens, factor)
