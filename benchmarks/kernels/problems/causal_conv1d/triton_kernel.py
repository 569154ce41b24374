"""Depthwise causal convolution with SiLU in one pass: 4 bytes an element, each read once and written once.

A program walks some steps of time over a block of channels and keeps the last three inputs in registers, so only the
three before its first step are read twice. Channels lie side by side, which makes all loads wide; the walk is unrolled,
so they are in flight together. In float32 inside (the layout and the window in registers: Dao and Gu's causal-conv1d).
"""

import torch
import triton
import triton.language as tl

CHANNELS = 512
TIMES = 16
WARPS = 4


@triton.jit
def row_of(x, time, length, channels, channel):
    """Inputs at one time, zero before the beginning and after the end."""
    inside = channel < tl.where((time >= 0) & (time < length), channels, 0)
    return tl.load(x + time.to(tl.int64) * channels + channel, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def causal_conv1d(x, weight, bias, y, length, channels, TIMES: tl.constexpr, CHANNELS: tl.constexpr):
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    begin = tl.program_id(1) * TIMES
    inside = channel < channels
    x += tl.program_id(2).to(tl.int64) * length * channels
    y += tl.program_id(2).to(tl.int64) * length * channels
    first = tl.load(weight + channel * 4, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(weight + channel * 4 + 1, mask=inside, other=0.0).to(tl.float32)
    third = tl.load(weight + channel * 4 + 2, mask=inside, other=0.0).to(tl.float32)
    fourth = tl.load(weight + channel * 4 + 3, mask=inside, other=0.0).to(tl.float32)
    added = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    before3 = row_of(x, begin - 3, length, channels, channel)
    before2 = row_of(x, begin - 2, length, channels, channel)
    before1 = row_of(x, begin - 1, length, channels, channel)
    for step in tl.static_range(TIMES):
        time = begin + step
        now = row_of(x, time, length, channels, channel)
        mixed = added + first * before3 + second * before2 + third * before1 + fourth * now
        place, there = y + time.to(tl.int64) * channels + channel, channel < tl.where(time < length, channels, 0)
        tl.store(place, (mixed * tl.sigmoid(mixed)).to(tl.bfloat16), mask=there)
        before3, before2, before1 = before2, before1, now


def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """x (batch, length, channels), weight (channels, 4), bias (channels,), bfloat16, to y of the shape of x."""
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    batch, length, channels = x.shape
    y = torch.empty_like(x)
    grid = (triton.cdiv(channels, CHANNELS), triton.cdiv(length, TIMES), batch)
    causal_conv1d[grid](x, weight, bias, y, length, channels, TIMES=TIMES, CHANNELS=CHANNELS, num_warps=WARPS)
    return y
