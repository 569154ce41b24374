"""What a candidate's weights say about themselves without being loaded: size, parameters, entropy."""

from __future__ import annotations

import json
import random
import struct

import pytest

from benchmarks.nanochat import sizes
from benchmarks.nanochat.weights import Weights


def packed(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def described_of(content: bytes) -> dict[str, float]:
    with Weights.of(content) as weights:
        return weights.describe().metrics


def test_parameters_are_counted_from_the_header() -> None:
    header = {
        "__metadata__": {"shape": [9]},
        "a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
        "scalar": {"dtype": "F32", "shape": [], "data_offsets": [48, 52]},
    }
    described = described_of(packed(header, bytes(52)))
    assert described["parameters"] == 13
    assert described["weight_bytes"] == len(packed(header, bytes(52)))


@pytest.mark.parametrize(
    "content",
    [b"", b"1234", struct.pack("<Q", 1 << 60) + b"{}", packed(b"[1]"), packed(b"\xff{"), packed({"a": 3}),
     packed({"a": {"shape": ["x"]}}), packed({"a": {"shape": None}}), packed(b"[" * 100_000)],
)  # fmt: skip
def test_weights_without_a_readable_header_have_a_size_and_no_parameters(content: bytes) -> None:
    described = described_of(content)
    assert "parameters" not in described and described["weight_bytes"] == len(content)


def test_packed_tables_stand_out_by_their_entropy() -> None:
    random_ = random.Random(1)
    floats = struct.pack("<20000f", *(random_.gauss(0, 0.1) for _ in range(20_000)))
    text = b"the quick brown fox " * 4000
    assert sizes.entropy(bytes(1000)) == 0 and sizes.entropy(b"") == 0
    assert sizes.entropy(text) < 4.5 < sizes.entropy(floats) < 7.6 < sizes.entropy(random_.randbytes(80_000))
    assert sizes.entropy(floats * 60) == pytest.approx(sizes.entropy(floats), abs=0.05), "a sample of a large file"
