"""The store of measured baselines: one JSON Lines file a device, only appended.

A row is one variant (`eager`, `compile`, `compile-max-autotune`, ...) on one workload: its latency, or the status by
which it failed. A sitting that was cut off goes on by skipping what is `done`. The baseline of a workload is the
fastest variant that passed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.kernels.anchors import Anchor, AnchorError, Anchors, Provenance

PASSED = "PASSED"  # the official status


@dataclass(frozen=True)
class Measurement:
    """One variant on one workload. `latency_ms` is there where `status` is PASSED, and only there.

    `timing` names how the time was taken (`events`, `profiler`, `process-cpu`); `software` what ran it (torch's
    version). Latencies of different timings or software are not compared with each other.
    """

    problem: str
    uuid: str
    variant: str
    device: str
    status: str
    latency_ms: float | None
    timing: str
    software: str
    measured_at: str  # ISO 8601, UTC

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "latency_ms" and not (isinstance(value, str) and value):
                raise AnchorError(f"{field.name} of a measurement is {value!r}; it must be a text")
        if not (_is_time(self.latency_ms) if self.status == PASSED else self.latency_ms is None):
            raise AnchorError(f"{self.variant} of {self.problem} is {self.status} with {self.latency_ms} ms; "
                              "what passed has a positive time, what failed has none")  # fmt: skip

    @property
    def key(self) -> tuple[str, str, str]:
        return self.problem, self.uuid, self.variant


class Store:
    """The file at `path`, of one device, one timing and one software."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first: Measurement | None = None

    def append(self, measurement: Measurement) -> None:
        """Add a row, on the disk when this returns. Raises AnchorError where the file is of something else."""
        if self._first is None:
            self._begin(measurement)
        else:
            _alike(self.path, self._first, measurement)
        with self.path.open("ab") as file:
            file.write(json.dumps(asdict(measurement), allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _begin(self, measurement: Measurement) -> None:
        """Hold the file against the first row, and drop what a sitting that was cut off left of a line."""
        first = next(iter(self.rows()), measurement)
        _alike(self.path, first, measurement)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.truncate(_whole(self.path.read_bytes()))
        self._first = first

    def rows(self) -> list[Measurement]:
        """In the order in which they came; a last line that was cut off is left out.

        Raises AnchorError for a damaged line or for rows of several devices, timings or versions.
        """
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        lines = content[: _whole(content)].splitlines()
        rows = [_row(self.path, number, line) for number, line in enumerate(lines, start=1)]
        for row in rows[1:]:
            _alike(self.path, rows[0], row)
        return rows

    def done(self) -> set[tuple[str, str, str]]:
        """(problem, uuid, variant) of all that was tried, passed or not."""
        return {row.key for row in self.rows()}

    def fastest(self) -> dict[tuple[str, str], Measurement]:
        """By (problem, uuid): the fastest row that passed. A variant that was measured again counts by its last row."""
        last = {row.key: row for row in self.rows()}
        best: dict[tuple[str, str], Measurement] = {}
        for row in last.values():
            place = row.problem, row.uuid
            if row.latency_ms is not None and (place not in best or row.latency_ms < (best[place].latency_ms or 0)):
                best[place] = row
        return best

    def anchors(self, bounds_ms: Mapping[str, Mapping[str, float]]) -> Anchors:
        """Measured anchors of every workload that has both a row that passed and a bound, in milliseconds.

        Bounds that a baseline beat are still there: `trusted` leaves them out.
        """
        figures: dict[str, dict[str, Anchor]] = {}
        device = ""
        for (problem, uuid), row in self.fastest().items():
            device = row.device
            bound = bounds_ms.get(problem, {}).get(uuid)
            if bound is not None and row.latency_ms is not None:
                figures.setdefault(problem, {})[uuid] = Anchor(bound, row.latency_ms, row.variant)
        return Anchors(device, Provenance.MEASURED, figures)


def beaten(anchors: Anchors) -> list[tuple[str, str]]:
    """(problem, uuid) whose bound is above the best measured latency: the bound is wrong, do not score by it."""
    return [(problem, uuid) for problem, of_problem in anchors.figures.items()
            for uuid, anchor in of_problem.items() if anchor.bound_ms > anchor.baseline_ms]  # fmt: skip


def trusted(anchors: Anchors) -> Anchors:
    """Without the workloads whose bound was beaten."""
    wrong = set(beaten(anchors))
    figures = {problem: {uuid: anchor for uuid, anchor in of_problem.items() if (problem, uuid) not in wrong}
               for problem, of_problem in anchors.figures.items()}  # fmt: skip
    return Anchors(anchors.device, anchors.provenance, figures)


def missing(rows: Iterable[Measurement], wanted: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """What of `wanted` was not tried yet, in that order."""
    tried = {row.key for row in rows}
    return [key for key in wanted if key not in tried]


def _is_time(value: object) -> bool:
    """A positive number of milliseconds; True is none, though it is an int."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _whole(content: bytes) -> int:
    """Bytes up to the end of the last whole line."""
    return content.rfind(b"\n") + 1


def _row(path: Path, number: int, line: bytes) -> Measurement:
    try:
        row: Any = json.loads(line)
        return Measurement(**row)
    except (ValueError, TypeError, RecursionError) as error:
        raise AnchorError(f"{path}, line {number}: no measurement ({error}); remove that line") from error


def _alike(path: Path, first: Measurement, other: Measurement) -> None:
    for name in ("device", "timing", "software"):
        here, there = getattr(first, name), getattr(other, name)
        if here != there:
            raise AnchorError(f"{path} is of {name} {here!r}, not {there!r}; give each its own file")
