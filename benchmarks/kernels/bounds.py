"""T_SOL, the time below which no kernel can be: from the bytes and operations of a problem and the peaks of a device.

Arithmetic alone, no torch: what a problem costs is found by `cost`, what a device really reaches by `calibrate`. Also
here is how a bound or baseline that was published for one device is carried over to another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

OVERHEAD_SECONDS = 0.4e-6  # most published bounds hold this constant above their roofline (median residual 0.386 us)
FITS = 0.10  # a published bound within this share of a roof was bound by that roof


class BoundError(ValueError):
    """A device without peaks, or figures no bound can be made of."""


class Precision(StrEnum):
    """Whose rate prices a multiply-accumulate. `TF32` and `FP32` are both of float32."""

    NVFP4 = "nvfp4"
    FP8 = "fp8"
    INT8 = "int8"
    BF16 = "bf16"  # and float16, whose rate is the same
    TF32 = "tf32"
    FP32 = "fp32"  # with all its digits: off the tensor cores or as three TF32 products, whichever is faster
    FP64 = "fp64"


class Roof(StrEnum):
    """What a bound is bound by."""

    MEMORY = "memory"
    COMPUTE = "compute"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Peaks:
    """Bytes and multiply-accumulates per second of one device. `source`: `datasheet` or, measured, `calibrated`."""

    device: str
    bytes_per_second: float
    macs_per_second: Mapping[Precision, float]
    source: str = "datasheet"

    def __post_init__(self) -> None:
        for value in (self.bytes_per_second, *self.macs_per_second.values()):
            if not (math.isfinite(value) and value > 0):
                raise BoundError(f"peaks of {self.device}: {value} is no rate; give bytes or operations per second")

    def seconds_of(self, macs: int, precision: Precision) -> float:
        """Of matmuls alone. Raises BoundError where the device cannot do them at that precision."""
        if not macs:
            return 0.0
        if precision not in self.macs_per_second:
            raise BoundError(f"{self.device} has no {precision} rate; its peaks name {', '.join(self.macs_per_second)}")
        return macs / self.macs_per_second[precision]

    def to_json(self) -> dict[str, Any]:
        return {"device": self.device, "source": self.source, "bytes_per_second": self.bytes_per_second,
                "macs_per_second": {str(key): value for key, value in self.macs_per_second.items()}}  # fmt: skip

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Peaks:
        """Raises BoundError for anything but what `to_json` wrote."""
        try:
            rates = {Precision(key): float(value) for key, value in row["macs_per_second"].items()}
            return cls(str(row["device"]), float(row["bytes_per_second"]), rates, str(row["source"]))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise BoundError(f"no peaks of a device ({error!r}); make them with `sol --calibrate`") from error


def _hopper(device: str, bytes_per_second: float) -> Peaks:
    """The SXM parts differ in memory alone. 2,048 bf16 MAC a cycle and SM, 132 SMs, 1.83 GHz; dense."""
    return Peaks(device, bytes_per_second, {
        Precision.FP8: 0.9895e15, Precision.INT8: 0.9895e15, Precision.BF16: 0.4947e15, Precision.TF32: 0.2474e15,
        Precision.FP32: 0.0825e15, Precision.FP64: 0.0335e15})  # fmt: skip


DATASHEET = {
    # What SOLAR (NVlabs/SOLAR, arch YAML) prices a B200 with: rates a cycle at the locked 1.5 GHz.
    "B200": Peaks("B200", 5111.6 * 1.5e9, {
        Precision.NVFP4: 2_415_000 * 1.5e9, Precision.FP8: 1_207_501 * 1.5e9, Precision.BF16: 603_751 * 1.5e9,
        Precision.TF32: 301_875 * 1.5e9, Precision.FP32: 100_625 * 1.5e9}),
    "H200": _hopper("H200", 4.8e12),
    "H100": _hopper("H100", 3.35e12),
}  # fmt: skip


def datasheet(device: str) -> Peaks:
    """By short name (`H200`) or by what CUDA calls the device (`NVIDIA H200`). Raises BoundError for others."""
    name = known(device)
    if name:
        return DATASHEET[name]
    raise BoundError(f"no datasheet peaks of {device!r}; known are {', '.join(DATASHEET)}, others can be calibrated")


def known(device: str) -> str | None:
    """The short name of a device with datasheet peaks."""
    return next((name for name in DATASHEET if name in device.upper().replace("-", " ").split()), None)


@dataclass(frozen=True)
class Work:
    """What a workload cannot do without: bytes to and from memory once, multiply-accumulates by precision."""

    bytes: int
    macs: Mapping[Precision, int]

    def memory_seconds(self, peaks: Peaks) -> float:
        return self.bytes / peaks.bytes_per_second

    def compute_seconds(self, peaks: Peaks) -> float:
        return sum(peaks.seconds_of(macs, precision) for precision, macs in self.macs.items())

    def to_json(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "macs": {str(precision): count for precision, count in self.macs.items()}}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Work:
        """Raises BoundError for anything but what `to_json` wrote."""
        try:
            return cls(int(row["bytes"]), {Precision(key): int(count) for key, count in row["macs"].items()})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise BoundError(f"no work of a workload ({error!r}); prepare the problems again") from error

    def roof(self, peaks: Peaks) -> Roof:
        return Roof.MEMORY if self.memory_seconds(peaks) >= self.compute_seconds(peaks) else Roof.COMPUTE


def bound_ms(work: Work, peaks: Peaks, overhead_seconds: float = OVERHEAD_SECONDS) -> float:
    """T_SOL in milliseconds: a constant, and the longer of moving the bytes and doing the matmuls."""
    return (overhead_seconds + max(work.memory_seconds(peaks), work.compute_seconds(peaks))) * 1e3


def roof_of(published_ms: float, work: Work | None, peaks: Peaks) -> Roof:
    """Which roof a published bound was made of: the one it fits within 10 %, with the constant or without.

    Without a fit it is unknown: other bytes or operations were counted there than here.
    """
    if work is None:
        return Roof.UNKNOWN
    roof = work.roof(peaks)
    seconds = work.memory_seconds(peaks) if roof is Roof.MEMORY else work.compute_seconds(peaks)
    fits = any(abs(published_ms / 1e3 - more - seconds) <= FITS * published_ms / 1e3 for more in (0, OVERHEAD_SECONDS))
    return roof if fits else Roof.UNKNOWN


def ratio(roof: Roof, source: Peaks, target: Peaks) -> float:
    """How many times longer something takes on `target`. Unknown roofs get the geometric mean of both ratios.

    That is off by at most the root of what the two differ by: 7 % from B200 to H200, 12 % to H100.
    """
    memory = source.bytes_per_second / target.bytes_per_second
    compute = source.macs_per_second[Precision.BF16] / target.macs_per_second[Precision.BF16]
    return {Roof.MEMORY: memory, Roof.COMPUTE: compute, Roof.UNKNOWN: math.sqrt(memory * compute)}[roof]
