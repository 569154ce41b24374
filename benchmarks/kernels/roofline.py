"""What the device of a judge cannot do in less time: bound, floor and scaled anchor of each workload of a problem."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from benchmarks.judge_device import about
from benchmarks.kernels.anchors import published, scaled
from benchmarks.kernels.bounds import OVERHEAD_SECONDS, BoundError, Peaks, Work, bound_ms, known
from benchmarks.kernels.calibrate import stored_peaks
from benchmarks.kernels.formats.workload import Problem, Workload
from benchmarks.kernels.prepare import read_works
from benchmarks.kernels.reference import torch_dtype


class Roofline:
    """By the peaks of the device, which are measured once for prepared data and kept beside them."""

    def __init__(self, data: Path, device: torch.device) -> None:
        self.data, self.device = data, device
        self.name = about(device).get("gpu", "")
        self._peaks: Peaks | None = None

    @property
    def peaks(self) -> Peaks:
        if self._peaks is None:
            name = f"peaks-{self.name.replace(' ', '-')}.json" if self.name else "peaks.json"
            self._peaks = stored_peaks(self.device, self.data / name)
        return self._peaks

    def of(self, problem: Problem) -> list[dict[str, Any]]:
        """`uuid`, `bound_ms`, `floor_ms` and `scaled_ms` (bound and baseline) of each workload; None what is not known.

        Raises AnchorError for damaged published figures.
        """
        works = read_works(self.data / "problems" / problem.name)
        carried_over = self._scaled(problem, works)
        return [
            {"uuid": each.uuid, "scaled_ms": carried_over.get(each.uuid), **self._bounds(problem, works, each)}
            for each in problem.workloads
        ]

    def _bounds(self, problem: Problem, works: dict[str, Work], workload: Workload) -> dict[str, float | None]:
        overhead, cached = 0.0, 0
        if self.device.type == "cuda":
            overhead, cached = OVERHEAD_SECONDS, min(_output_bytes(problem, workload), l2_bytes(self.device))
        try:
            work = works[workload.uuid]
            floor = 1e3 * max(0, work.bytes - cached) / self.peaks.bytes_per_second
            return {"bound_ms": bound_ms(work, self.peaks, overhead), "floor_ms": floor}
        except (KeyError, BoundError):
            return {"bound_ms": None, "floor_ms": None}

    def _scaled(self, problem: Problem, works: dict[str, Work]) -> dict[str, tuple[float, float]]:
        if not known(self.name):
            return {}
        anchors = scaled(published([problem]), self.name, {problem.name: works})
        return {uuid: (each.bound_ms, each.baseline_ms) for uuid, each in anchors.figures.get(problem.name, {}).items()}


def l2_bytes(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


def _output_bytes(problem: Problem, workload: Workload) -> int:
    shapes = problem.definition.shapes(workload.axes)
    return sum(
        torch_dtype(spec.dtype).itemsize * math.prod(shapes.get(name, ()))
        for name, spec in problem.definition.outputs.items()
    )
