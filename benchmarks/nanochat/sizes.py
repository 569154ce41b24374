"""What a candidate weighs: its code and its weights, as metrics beside the score. Nothing here loads or runs either."""

from __future__ import annotations

import io
import json
import math
import struct
import tarfile

import numpy as np
from numpy.typing import NDArray

TREE_BYTES = 1 << 20  # of all files of a commit; the vanilla start has 17 kB
_HEADER_BYTES = 8 << 20
_SAMPLED = 1 << 22  # bytes of the weights that the entropy is read from


def code_bytes(tree: bytes) -> int:
    """Bytes of all files in a tar."""
    with tarfile.open(fileobj=io.BytesIO(tree)) as archive:
        return sum(member.size for member in archive)


def entropy(content: bytes) -> float:
    """Bits per byte of an even sample. Trained floats lie near 7; packed tables near 8, text far below."""
    return entropy_of(histogram(content[:: sample_step(len(content))]))


def sample_step(size: int) -> int:
    """Every how many bytes one is looked at; an odd step, so that every byte of a float is seen."""
    return size // _SAMPLED | 1


def histogram(content: bytes) -> NDArray[np.int64]:
    """How often each byte occurs, int64 [256]."""
    return np.bincount(np.frombuffer(content, dtype=np.uint8), minlength=256)


def entropy_of(counts: NDArray[np.int64]) -> float:
    """Bits per byte of a histogram; 0 for an empty one."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def parameters(weights: bytes) -> int | None:
    """Values in all tensors together, after the header; None where it is no header."""
    try:
        (size,) = struct.unpack_from("<Q", weights)
        if size > min(len(weights), _HEADER_BYTES):
            return None
        header = json.loads(weights[8 : 8 + size])
        return sum(math.prod(map(int, about["shape"])) for name, about in header.items() if name != "__metadata__")
    except (struct.error, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
