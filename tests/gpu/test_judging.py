"""The bench of scoring and auditing, played: on a GPU against the figures to reach, at tiny size anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runners import cuda

pytestmark = pytest.mark.torch


def played(device: str, start: str, large_gib: float, folder: Path) -> dict[str, Any]:
    from tests.gpu.judging import Bench

    rows = Bench(device, start, large_gib, folder).measure(trained=False)
    assert rows["honest"]["score"] == pytest.approx(rows["direct"]["score"], abs=1e-3)
    assert rows["honest"]["findings"] == rows["honest_confirming"]["findings"] == []
    assert {name for name, row in rows["cheats"].items() if not row["caught"]} == set()
    assert all(row["score"] < rows["honest"]["score"] for row in rows["cheats"].values())  # what gains nothing may pass
    assert rows["not_a_number"]["kind"] == "not_finite"
    assert rows["out_of_memory"]["kind"] == "out_of_memory"
    assert rows["large_weights"]["sealed"]
    return rows


@pytest.mark.slow
def test_the_bench_plays_at_tiny_size(tmp_path: Path) -> None:
    played("cpu", "vanilla", 0.05, tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not cuda.nodes(), reason="needs an NVIDIA GPU")
def test_scoring_costs_half_more_than_one_process_at_most_and_audits_five_seconds(tmp_path: Path) -> None:
    rows = played("cuda", "modern", 4.0, tmp_path)
    assert rows["score_ratio"] <= 1.5 and rows["score_ratio_first"] <= 1.5
    assert rows["honest"]["audit_wall"] <= 5
    assert rows["out_of_memory"]["asked"] == 1 << 30
    assert "LEFT 0.000000" in rows["leftovers"]["message"]
