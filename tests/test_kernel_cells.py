"""Cells as metrics of a result and back."""

from __future__ import annotations

import pytest

from benchmarks.kernels.cells import CellTimes, cells, metrics
from benchmarks.kernels.trees import room


def test_cells_survive_as_metrics_and_nothing_else_is_taken_for_one() -> None:
    bounded, plain = CellTimes(0.5, 1.25, 0.1), CellTimes(3.0, 2.0)
    told = metrics("rms_norm", "a/b", bounded) | metrics("gqa", "one", plain)
    others = {"memory_bytes": 5.0, "latency_ms": 1.0, "latency_ms broken": 2.0, "latency_ms gqa/unpaired": 1.0}
    assert cells(told | others) == {"rms_norm": {"a/b": bounded}, "gqa": {"one": plain}}


def test_what_is_left_to_gain_is_the_latency_above_the_bound_over_all_workloads_with_one() -> None:
    rows = {"a": CellTimes(0.4, 1.0, 0.1), "b": CellTimes(0.1, 1.0, 0.1), "c": CellTimes(9.0, 9.0)}
    told = {name: value for uuid, row in rows.items() for name, value in metrics("gqa", uuid, row).items()}
    assert room(told | metrics("rope", "a", CellTimes(1.0, 1.0))) == {"gqa": pytest.approx(0.5)}
    assert room(metrics("gqa", "a", CellTimes(0.05, 1.0, 0.1))) == {"gqa": 0.0}
