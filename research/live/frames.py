"""The binary container of points and of history, as docs/decisions/0007 lays it out, and the blocks in it.

numpy is imported where arrays are made: a web process that shows no chart does without.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from research.models.series import Buckets, Points

VERSION, POINTS, HISTORY = 1, 1, 2
PREFIX = struct.Struct("<BBHI")
LENGTHS = struct.Struct("<II")
PRECISION = 2**-24  # relative, of float32
FINE = 2**-13  # of a series' range: less than a pixel on any screen
TINY, HUGE = 1.2e-38, 1e38  # of float32, and some room
MOST_SHAVED = 8
MAX_U4 = 2**32 - 1
COMPACT = json.JSONEncoder(separators=(",", ":")).encode


def frame(kind: int, blocks: Sequence[bytes], number: int = 0) -> bytes:
    return b"".join((PREFIX.pack(VERSION, kind, len(blocks), number), *blocks))


def _block(header: dict[str, Any], arrays: Sequence[bytes]) -> bytes:
    text = COMPACT(header).encode()
    text += b" " * (-len(text) % 8)
    payload = b"".join(array + b"\0" * (-len(array) % 8) for array in arrays)
    return b"".join((LENGTHS.pack(len(text), len(payload)), text, payload))


def points_block(topic: str, generation: int, stretches: Sequence[tuple[str, int, Points]]) -> bytes:
    """New points: (metric, sequence number of the first, steps and values) of each series."""
    header = {
        "topic": topic,
        "generation": generation,
        "series": [{"metric": metric, "first": first, "count": len(points[0])} for metric, first, points in stretches],
    }
    arrays = [array.astype("<f8", copy=False).tobytes() for *_, points in stretches for array in points]
    return _block(header, arrays)


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a history: `count` points are in the buckets, `next_seq` were read."""

    metric: str
    next_seq: int
    count: int
    buckets: Buckets


def history_block(topic: str, generation: int, lines: Sequence[Line]) -> bytes:
    packed = [_pack(line) for line in lines]
    header = {"topic": topic, "generation": generation, "series": [about for about, _ in packed]}
    return _block(header, [array for _, arrays in packed for array in arrays])


def _pack(line: Line) -> tuple[dict[str, Any], list[bytes]]:
    import numpy as np

    buckets, n = line.buckets, len(line.buckets.last)
    whole = n == line.count
    step = int(buckets.first_step[0]) if n else 0
    places = buckets.last_step if whole else np.column_stack((buckets.first_step, buckets.last_step)).ravel()
    gaps = np.diff(places, prepend=step)
    if n and not 0 <= gaps.min() <= gaps.max() <= MAX_U4:  # steps may be any int64: a difference can overflow
        gaps = np.diff(places.astype("<f8"), prepend=float(step))
    values: NDArray[Any] = buckets.last if whole else np.concatenate((buckets.low, buckets.high, buckets.last))
    odd = np.flatnonzero(buckets.nan + buckets.positive_inf + buckets.negative_inf)
    marks = np.concatenate((odd, buckets.nan[odd], buckets.positive_inf[odd], buckets.negative_inf[odd]))
    gap_type = "u4" if gaps.dtype.kind == "i" else "f8"
    kind = "f4" if _is_fine_as_float32(values) else "f8"
    if kind == "f4":
        values = values.astype("<f4") if whole else _widened(buckets, values)
    about = {
        "metric": line.metric, "next_seq": line.next_seq, "count": line.count, "n": n, "step": step,
        "gaps": gap_type, "values": kind, "whole": whole, "marks": len(odd),
    }  # fmt: skip
    return about, [_planes(gaps, gap_type), _planes(values, kind), _planes(marks, "u4")]


def _planes(array: NDArray[Any], kind: str) -> bytes:
    """Byte 0 of all entries, then byte 1 ...: exponents and zeros lie together, and gzip finds them."""
    import numpy as np

    plain = array.astype(f"<{kind}")
    return np.ascontiguousarray(plain.view(np.uint8).reshape(-1, plain.itemsize).T).tobytes()


def _is_fine_as_float32(values: NDArray[np.float64]) -> bool:
    import numpy as np

    finite = values[np.isfinite(values)]
    sizes = np.abs(finite[finite != 0])
    if not sizes.size:
        return True
    largest, smallest = float(sizes.max()), float(sizes.min())
    return largest < HUGE and smallest > TINY and largest * PRECISION <= float(finite.max() - finite.min()) * FINE


def _widened(buckets: Buckets, values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Low and high rounded outwards to fewer bits, as far as nobody can see it; last as it is. A third less to send."""
    import numpy as np

    floats = values.astype("<f4")
    low, high = (floats[at : at + len(buckets.last)] for at in (0, len(buckets.last)))
    for rounded, true, way in ((low, buckets.low, -np.inf), (high, buckets.high, np.inf)):
        inside = rounded > true if way < 0 else rounded < true
        rounded[inside] = np.nextafter(rounded[inside], np.float32(way))
    shave = _bits_to_shave(values)
    for rounded, away in ((low, low < 0), (high, high > 0)):
        bits = rounded.view("<u4")
        bits[away] += np.uint32(2**shave - 1)
        bits &= np.uint32(2**32 - 2**shave)
    return floats


def _bits_to_shave(values: NDArray[np.float64]) -> int:
    """Of float32's 24 bits, how many say less than FINE of the range; 8 are a plane of zeros."""
    import numpy as np

    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max(initial=0.0))
    spare = float(finite.max() - finite.min()) * FINE / (2 * largest * PRECISION) if largest else 1.0
    return min(max(int(math.log2(spare)), 0), MOST_SHAVED) if spare > 1 else 0
