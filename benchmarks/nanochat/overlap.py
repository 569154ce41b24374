"""How much text is in two places: shares of 64-byte windows that also occur elsewhere. Free of torch.

A window is known by a 64-bit polynomial hash, so two different ones pass for the same once in 10^19. Of large texts one
window in so many is looked at, chosen by its own hash and therefore the same ones in every text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WINDOW = 64  # bytes; about 13 words of English
MOST_WINDOWS = 4_000_000  # looked at in all: a second of sorting
_FACTOR = 0x9E3779B97F4A7C15

Hashes = NDArray[np.uint64]


def windows(content: bytes, every: int = 1) -> Hashes:
    """Hashes of the 64-byte windows of a text; of one in `every`."""
    if len(content) < WINDOW:
        return np.empty(0, dtype=np.uint64)
    hashes = np.frombuffer(content, dtype=np.uint8).astype(np.uint64)
    width, factor = 1, np.uint64(_FACTOR)
    while width < WINDOW:  # a window is its two halves: h(ab) = h(a) factor^|b| + h(b), modulo 2^64
        hashes = hashes[:-width] * factor + hashes[width:]
        width, factor = 2 * width, np.uint64(int(factor) ** 2 % 2**64)
    hashes ^= hashes >> np.uint64(29)  # the low bits of a product are its weakest
    chosen: Hashes = hashes[hashes % np.uint64(every) == 0]
    return chosen


def share_elsewhere(groups: Sequence[Hashes]) -> list[float]:
    """Of each group of windows, the share that occurs in another group, too."""
    if not groups:
        return []
    flat = np.concatenate(groups)
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    order = np.argsort(flat, kind="stable")
    flat, owner = flat[order], owner[order]
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))[: len(flat)]
    if not len(starts):
        return [0.0] * len(groups)
    several = np.minimum.reduceat(owner, starts) != np.maximum.reduceat(owner, starts)
    shared = np.repeat(several, np.diff(np.append(starts, len(flat))))
    found = np.bincount(owner, weights=shared, minlength=len(groups))
    held = np.bincount(owner, minlength=len(groups))
    return [float(part / max(1, whole)) for part, whole in zip(found, held, strict=True)]
