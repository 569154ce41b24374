"""What a trial tells of each workload that it measured: flat metrics of its result, and what they stand for.

A cell is one workload of one problem. Its metrics are named `KIND PROBLEM/UUID`; times are in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LATENCY, REFERENCE, BOUND = "latency_ms", "reference_ms", "bound_ms"


@dataclass(frozen=True)
class CellTimes:
    """One workload in one trial; both times were taken in turns, in the same launch, on the same device."""

    latency_ms: float  # of a call of the solution
    reference_ms: float  # of a call of the definition's reference
    bound_ms: float | None = None  # by the roofline of the device; None where it is not known


def metrics(problem: str, uuid: str, times: CellTimes) -> dict[str, float]:
    place = f"{problem}/{uuid}"
    found = {f"{LATENCY} {place}": times.latency_ms, f"{REFERENCE} {place}": times.reference_ms}
    return found if times.bound_ms is None else found | {f"{BOUND} {place}": times.bound_ms}


def cells(metrics: Mapping[str, float]) -> dict[str, dict[str, CellTimes]]:
    """Problem -> uuid -> times, of all cells that a result's metrics tell of; other metrics are passed over."""
    kinds: dict[str, dict[str, float]] = {LATENCY: {}, REFERENCE: {}, BOUND: {}}
    for name, value in metrics.items():
        kind, _, place = name.partition(" ")
        if kind in kinds and "/" in place:
            kinds[kind][place] = value
    found: dict[str, dict[str, CellTimes]] = {}
    for place, latency in kinds[LATENCY].items():
        problem, _, uuid = place.partition("/")
        if place in kinds[REFERENCE]:
            times = CellTimes(latency, kinds[REFERENCE][place], kinds[BOUND].get(place))
            found.setdefault(problem, {})[uuid] = times
    return found
