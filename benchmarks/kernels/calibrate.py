"""What a device really reaches: its peaks by measurement, beside the datasheet's in `bounds`.

A peak is the best of some repetitions, not their median: no kernel shall pass a bound that is made of it. Memory is the
better of copying and of reading alone; matmuls are torch's own, large and square.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.kernels.bounds import Peaks, Precision

WARM_UPS, REPETITIONS = 3, 10
BYTES = {"cpu": (2 << 20, 16 << 20, 256 << 20), "cuda": (2 << 30,)}  # on a GPU far beyond the caches, which are flushed
SIDE = {"cpu": 1024, "cuda": 8192}  # of the square matmuls


def calibrate(device: torch.device) -> Peaks:
    """Takes seconds, alone on the device. A rate whose matmul this torch cannot do on the device is left out."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return Peaks(name, _bytes_per_second(device), _macs_per_second(device), "calibrated")


def stored_peaks(device: torch.device, path: Path) -> Peaks:
    """The peaks that stand in a file, measured and stored where it is not there or damaged."""
    try:
        return Peaks.from_json(json.loads(path.read_text()))
    except (OSError, ValueError):
        peaks = calibrate(device)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(peaks.to_json()))
        partial.replace(path)
        return peaks


def _bytes_per_second(device: torch.device) -> float:
    """The best over all sizes: inputs of a CPU problem may lie in a cache."""
    return max(_copied_or_read(size, device) for size in BYTES[device.type])


def _copied_or_read(size: int, device: torch.device) -> float:
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    copied = 2 * size / _best_seconds(lambda: target.copy_(source), device)
    read = size / _best_seconds(lambda: source.sum(), device)
    return max(copied, read)


def _macs_per_second(device: torch.device) -> dict[Precision, float]:
    side = SIDE[device.type]
    dtypes = {Precision.FP32: torch.float32, Precision.FP64: torch.float64}
    if device.type != "cpu":  # most CPUs take seconds for it
        dtypes[Precision.BF16] = torch.bfloat16
    rates = {}
    for precision, dtype in dtypes.items():
        one = torch.ones(side, side, dtype=dtype, device=device)
        out = torch.empty_like(one)
        rates[precision] = side**3 / _best_seconds(lambda one=one, out=out: torch.mm(one, one, out=out), device)  # type: ignore[misc]
    if device.type == "cpu":
        return {**rates, Precision.TF32: rates[Precision.FP32], Precision.BF16: rates[Precision.FP32]}
    rates[Precision.TF32] = side**3 / _best_seconds(_tf32(side, device), device)
    rates[Precision.FP32] = max(rates[Precision.FP32], rates[Precision.TF32] / 3)
    if torch.cuda.get_device_capability(device) >= (8, 9):
        rates[Precision.FP8] = side**3 / _best_seconds(_fp8(side, device), device)
    return rates


def _tf32(side: int, device: torch.device) -> Callable[[], object]:
    one = torch.ones(side, side, device=device)

    def call() -> None:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.mm(one, one)
        torch.backends.cuda.matmul.allow_tf32 = before

    return call


def _fp8(side: int, device: torch.device) -> Callable[[], object]:
    one = torch.ones(side, side, device=device).to(torch.float8_e4m3fn)
    scale = torch.ones((), device=device)
    return lambda: torch._scaled_mm(one, one.t(), scale, scale, out_dtype=torch.bfloat16)


def _best_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Of one call, on the device's own clock where it has one."""
    for _ in range(WARM_UPS):
        call()
    return min(_seconds(call, device) for _ in range(REPETITIONS))


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cpu":
        start = time.process_time()  # not what others take of the core
        call()
        return time.process_time() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1e3
