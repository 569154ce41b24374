"""Hashed tables: vectors looked up by the last few tokens, trained row by row on what a batch touched.

A table is far larger than what one step touches, so no dense gradient of it ever exists: `forward` adds a zero (the
`sink`) to the rows that it looked up, the sink catches their gradient, and `learn` moves those rows alone.

Sources: modded-nanogpt records 62 and 71 (hashed bigrams, sparse gradients); Recursive 2026, First Steps Toward
Automated AI Research (two half-width tables a layer, a hash of its own for each, RMSProp without momentum or decay).
Shapes: B rows of the batch, T positions, W width of what is looked up, N = 2BT look-ups.
"""

import math

import torch
import torch.nn.functional as F
from row_update import row_update
from torch import nn

BETA2 = 0.999
BY_VISITS = False  # whether the second moment of a row fades with its visits, not with all steps
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
        self.register_buffer("moment", None, persistent=False)  # the second one, float32
        self.register_buffer("clock", None, persistent=False)  # see row_update
        self.sink = None
        self.held = False  # whether it learns nothing for now

    def index(self, tokens):  # [B, T] -> [B, T, 2], the row of each half
        halves = []
        for half, multipliers in enumerate(self.multipliers):
            key = tokens * multipliers[0]
            for lag, factor in enumerate(multipliers[1:], 1):
                key = key ^ (F.pad(tokens, (lag, -lag)) * factor)  # in front of a row stands token 0
            halves.append(((key >> 24) & (self.rows - 1)) + half * self.rows)
        return torch.stack(halves, dim=-1)

    def forward(self, tokens):  # [B, T] -> [B, T, W]
        found = F.embedding(self.index(tokens), self.weight)  # [B, T, 2, W / 2]
        if self.training and self.sink is not None:
            found = found + self.sink.reshape(found.shape)
        return found.flatten(-2)

    def open(self, batch, length):
        """Get ready to learn from batches of this shape, and forget what was learned from others."""
        if self.sink is None:
            rows, device = len(self.weight), self.weight.device
            zero = torch.zeros((), dtype=self.weight.dtype, device=device)
            self.sink = zero.expand(2 * batch * length, self.weight.size(1)).requires_grad_()
            moment_width = self.weight.size(1)
            self.moment = torch.empty(rows, moment_width, device=device)
            self.clock = torch.empty(rows, device=device)
        self.moment.zero_()
        self.clock.zero_()
        self.log_decay = 0.0  # of the second moments, since the first step

    def learn(self, tokens, factor):
        """One step of RMSProp on the rows that `tokens` looked up, after the backward pass through them."""
        gradient = self.sink.grad  # [N, W / 2]
        self.sink.grad = None
        if self.held:
            return
        self.log_decay += math.log(BETA2)
        index = self.index(tokens).view(-1, 1).int()  # [N, 1]
        row_update(
            self.weight, self.moment, self.clock, index, gradient,
            factor * self.rate, BETA2, self.log_decay, EPSILON, BY_VISITS,
        )  # fmt: skip


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


def hold_tables(model, held):  # let them learn nothing for now, or again
    for table in tables(model):
        table.held = held
