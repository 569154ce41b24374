"""The WKV recurrence in parallel over stretches of time: 20 bytes an element where the sequence is cut, else 12.

Step after step over the whole sequence a batch of one would keep 64 warps of the device busy. The state after a
stretch is that before it, decayed, plus what the stretch adds alone, so all stretches run at once: the first kernel
finds what each adds, the second takes in those before it and walks its own again, writing the means. Both sums of a
state are over the exponential of its peak, so nothing overflows (Peng et al. 2023, "RWKV", appendix; the cut into
stretches as in Blelloch's two-pass scan). The inputs of several steps are loaded ahead of the walk over them, or each
step would wait for memory.
"""

import torch
import triton
import triton.language as tl

STRETCH = 128  # steps
AHEAD = 8  # steps whose inputs are loaded together; a divisor of STRETCH
CHANNELS = 64
NEVER = -1e30  # the peak of a sum of nothing


@triton.jit
def absorbed(top, bottom, peak, key, value, rate):
    """The state (two sums over exp(peak)) one step later."""
    highest = tl.maximum(peak - rate, key)
    past, now = tl.exp(peak - rate - highest), tl.exp(key - highest)
    return past * top + now * value, past * bottom + now, highest


@triton.jit
def loaded(k, v, place, time, end, stride, channel, channels, AHEAD: tl.constexpr):
    """Keys and values of the next steps, one tensor each; beyond the end, what changes nothing."""
    keys = ()
    values = ()
    for step in tl.static_range(AHEAD):
        at, inside = place + (time + step) * stride, channel < tl.where(time + step < end, channels, 0)
        keys += (tl.load(k + at, mask=inside, other=-1e30),)
        values += (tl.load(v + at, mask=inside, other=0.0),)
    return keys, values


@triton.jit
def stretch_states(
    k, v, log_rate, states, length, channels, size, NEVER: tl.constexpr,
    STRETCH: tl.constexpr, AHEAD: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """What each stretch but the last adds: states [3, batch, stretches - 1, channels], `size` elements a third."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    stride = tl.cast(channels, tl.int64)
    place = tl.program_id(2).to(tl.int64) * length * stride + channel
    rate = tl.exp(tl.load(log_rate + channel, mask=inside, other=0.0))
    top = tl.zeros((CHANNELS,), tl.float32)
    bottom = tl.zeros((CHANNELS,), tl.float32)
    peak = tl.full((CHANNELS,), NEVER, tl.float32)
    begin = tl.program_id(1) * STRETCH
    for time in range(begin, begin + STRETCH, AHEAD):
        keys, values = loaded(k, v, place, time, length, stride, channel, channels, AHEAD)
        for step in tl.static_range(AHEAD):
            top, bottom, peak = absorbed(top, bottom, peak, keys[step], values[step], rate)
    to = states + (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * stride + channel
    tl.store(to, top, mask=inside)
    tl.store(to + size, bottom, mask=inside)
    tl.store(to + 2 * size, peak, mask=inside)


@triton.jit
def wkv_decay(
    k, v, log_rate, bonus, states, wkv, length, channels, size, NEVER: tl.constexpr,
    STRETCH: tl.constexpr, AHEAD: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    stride = tl.cast(channels, tl.int64)
    place = tl.program_id(2).to(tl.int64) * length * stride + channel
    rate = tl.exp(tl.load(log_rate + channel, mask=inside, other=0.0))
    added = tl.load(bonus + channel, mask=inside, other=0.0)
    top = tl.zeros((CHANNELS,), tl.float32)
    bottom = tl.zeros((CHANNELS,), tl.float32)
    peak = tl.full((CHANNELS,), NEVER, tl.float32)
    first = tl.program_id(2) * (tl.num_programs(1) - 1)
    for before in range(first, first + tl.program_id(1)):
        state = states + before * stride + channel
        theirs = tl.load(state + 2 * size, mask=inside, other=0.0)
        highest = tl.maximum(peak - STRETCH * rate, theirs)
        past, now = tl.exp(peak - STRETCH * rate - highest), tl.exp(theirs - highest)
        top = past * top + now * tl.load(state, mask=inside, other=0.0)
        bottom = past * bottom + now * tl.load(state + size, mask=inside, other=1.0)
        peak = highest
    begin = tl.program_id(1) * STRETCH
    end = tl.minimum(begin + STRETCH, length)
    for time in range(begin, end, AHEAD):
        keys, values = loaded(k, v, place, time, end, stride, channel, channels, AHEAD)
        for step in tl.static_range(AHEAD):
            highest = tl.maximum(peak, keys[step] + added)
            past, now = tl.exp(peak - highest), tl.exp(keys[step] + added - highest)
            mean = (past * top + now * values[step]) / (past * bottom + now)
            to = wkv + place + (time + step) * stride
            tl.store(to, mean, mask=channel < tl.where(time + step < end, channels, 0))
            top, bottom, peak = absorbed(top, bottom, peak, keys[step], values[step], rate)


def run(k: torch.Tensor, v: torch.Tensor, log_rate: torch.Tensor, bonus: torch.Tensor) -> torch.Tensor:
    """k and v (batch, length, channels), log_rate and bonus (channels,), float32, to means of the shape of k."""
    k, v, log_rate, bonus = k.contiguous(), v.contiguous(), log_rate.contiguous(), bonus.contiguous()
    batch, length, channels = k.shape
    wkv = torch.empty_like(k)
    blocks, stretches = triton.cdiv(channels, CHANNELS), triton.cdiv(length, STRETCH)
    states = torch.empty((3, batch, stretches - 1, channels), dtype=k.dtype, device=k.device)
    constants = {"NEVER": NEVER, "STRETCH": STRETCH, "AHEAD": AHEAD, "CHANNELS": CHANNELS, "num_warps": 2}
    size = states[0].numel()
    if stretches > 1:
        stretch_states[(blocks, stretches - 1, batch)](k, v, log_rate, states, length, channels, size, **constants)
    wkv_decay[(blocks, stretches, batch)](k, v, log_rate, bonus, states, wkv, length, channels, size, **constants)
    return wkv
