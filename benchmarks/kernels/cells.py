"""What a trial tells of each workload that it measured: flat metrics of its result, and what they stand for.

A cell is one workload of one problem. Its metrics are named `KIND PROBLEM/UUID`; times are in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from benchmarks.kernels.anchors import Anchor


@dataclass(frozen=True)
class CellTimes:
    """One workload in one trial; latency and reference were taken in the same launch, on the same device."""

    latency_ms: float  # of a call of the solution
    reference_ms: float  # of a call of the definition's reference
    bound_ms: float | None = None  # by the roofline of the device; None where it is not known
    scaled_bound_ms: float | None = None  # published for another device, and carried over to this one
    scaled_baseline_ms: float | None = None
    stopwatch_ms: float | None = None  # the latency by a stopwatch outside of its process, blurred; on a GPU

    @property
    def measured(self) -> Anchor | None:
        """The reference as the baseline."""
        return None if self.bound_ms is None else Anchor(self.bound_ms, self.reference_ms)

    @property
    def scaled(self) -> Anchor | None:
        if self.scaled_bound_ms is None or self.scaled_baseline_ms is None:
            return None
        return Anchor(self.scaled_bound_ms, self.scaled_baseline_ms)


KINDS = tuple(field.name for field in fields(CellTimes))


def metrics(problem: str, uuid: str, times: CellTimes) -> dict[str, float]:
    values = ((kind, getattr(times, kind)) for kind in KINDS)
    return {f"{kind} {problem}/{uuid}": value for kind, value in values if value is not None}


def cells(metrics: Mapping[str, float]) -> dict[str, dict[str, CellTimes]]:
    """Problem -> uuid -> times, of all cells that a result's metrics tell of; other metrics are passed over."""
    places: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        kind, _, place = name.partition(" ")
        if kind in KINDS and "/" in place:
            places.setdefault(place, {})[kind] = value
    found: dict[str, dict[str, CellTimes]] = {}
    for place, values in places.items():
        problem, _, uuid = place.partition("/")
        if "latency_ms" in values and "reference_ms" in values:
            found.setdefault(problem, {})[uuid] = CellTimes(**values)
    return found
