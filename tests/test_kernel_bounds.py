"""T_SOL from bytes and operations, and figures carried from one device to another."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks.kernels import bounds
from benchmarks.kernels.bounds import DATASHEET, BoundError, Peaks, Precision, Roof, Work

H200, H100, B200 = DATASHEET["H200"], DATASHEET["H100"], DATASHEET["B200"]


def test_a_bound_is_the_longer_of_moving_and_computing() -> None:
    moving = Work(4_800_000_000, {Precision.BF16: 1_000})
    computing = Work(1_000, {Precision.BF16: 494_700_000_000})
    assert bounds.bound_ms(moving, H200) == pytest.approx(1.0004)  # 1 ms at 4.8 TB/s, and 0.4 us
    assert bounds.bound_ms(computing, H200) == pytest.approx(1.0004)  # 1 ms at 0.4947 PMAC/s
    assert bounds.bound_ms(moving, H200, overhead_seconds=0) == pytest.approx(1.0)
    assert (moving.roof(H200), computing.roof(H200)) == (Roof.MEMORY, Roof.COMPUTE)


def test_matmuls_of_several_precisions_come_one_after_another() -> None:
    both = Work(1, {Precision.BF16: 494_700_000_000, Precision.FP8: 989_500_000_000})
    assert both.compute_seconds(H200) == pytest.approx(2e-3)


def test_a_precision_that_the_device_lacks_is_refused() -> None:
    with pytest.raises(BoundError, match="H200 has no nvfp4 rate"):
        bounds.bound_ms(Work(1, {Precision.NVFP4: 1}), H200)


def test_the_ratios_from_b200_are_those_of_the_datasheets() -> None:
    assert bounds.ratio(Roof.MEMORY, B200, H200) == pytest.approx(1.597, abs=5e-4)
    assert bounds.ratio(Roof.COMPUTE, B200, H200) == pytest.approx(1.831, abs=5e-4)
    assert bounds.ratio(Roof.UNKNOWN, B200, H200) == pytest.approx(1.71, abs=5e-3)
    assert bounds.ratio(Roof.MEMORY, B200, H100) == pytest.approx(2.289, abs=5e-4)
    assert B200.macs_per_second[Precision.FP8] / H200.macs_per_second[Precision.FP8] == pytest.approx(1.830, abs=5e-4)


def test_an_unknown_roof_errs_by_no_more_than_is_said() -> None:
    for target, most in ((H200, 0.075), (H100, 0.12)):
        middle = bounds.ratio(Roof.UNKNOWN, B200, target)
        for roof in (Roof.MEMORY, Roof.COMPUTE):
            assert abs(middle / bounds.ratio(roof, B200, target) - 1) <= most


def test_a_published_bound_is_of_the_roof_that_it_fits() -> None:
    work = Work(7_667_400_000, {Precision.BF16: 1_000})  # 1 ms of a B200's memory
    assert bounds.roof_of(1.0, work, B200) is Roof.MEMORY
    assert bounds.roof_of(1.1, work, B200) is Roof.MEMORY
    assert bounds.roof_of(1.2, work, B200) is Roof.UNKNOWN
    assert bounds.roof_of(1.0, None, B200) is Roof.UNKNOWN
    short = Work(7_667_400, {})  # 1 us: the constant is a large part
    assert bounds.roof_of(0.0014, short, B200) is Roof.MEMORY
    assert bounds.roof_of(0.001, short, B200) is Roof.MEMORY


def test_a_device_is_found_by_what_cuda_calls_it() -> None:
    assert bounds.datasheet("NVIDIA H200") is H200
    assert bounds.datasheet("NVIDIA H100 80GB HBM3") is H100
    with pytest.raises(BoundError, match="known are B200, H200, H100"):
        bounds.datasheet("NVIDIA A100-SXM4-80GB")


def test_peaks_survive_a_file_and_damaged_ones_do_not() -> None:
    assert Peaks.from_json(json.loads(json.dumps(H200.to_json()))) == H200
    for row in ({}, {**H200.to_json(), "macs_per_second": {"bf17": 1.0}}, {**H200.to_json(), "bytes_per_second": "x"}):
        with pytest.raises(BoundError, match="--calibrate"):
            Peaks.from_json(row)
    with pytest.raises(BoundError, match="no rate"):
        Peaks("x", math.nan, {})
