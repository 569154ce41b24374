"""Cells as metrics of a result and back."""

from __future__ import annotations

from benchmarks.kernels.cells import CellTimes, cells, metrics


def test_cells_survive_as_metrics_and_nothing_else_is_taken_for_one() -> None:
    bounded, plain = CellTimes(0.5, 1.25, 0.1), CellTimes(3.0, 2.0)
    told = metrics("rms_norm", "a/b", bounded) | metrics("gqa", "one", plain)
    others = {"memory_bytes": 5.0, "latency_ms": 1.0, "latency_ms broken": 2.0, "latency_ms gqa/unpaired": 1.0}
    assert cells(told | others) == {"rms_norm": {"a/b": bounded}, "gqa": {"one": plain}}
