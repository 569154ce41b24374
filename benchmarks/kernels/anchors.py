"""Anchors: the bound (T_SOL) and the baseline (T_b) that a latency is scored between, and where they come from.

`Anchors` holds figures of one device and one provenance, and a mean is only ever taken over one `Anchors`
(`score.board`): figures published for a B200, figures scaled from them and figures measured here cannot meet in a mean.
What was measured is kept by `measured`. What anchors are worth as a score is said by `score`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from benchmarks.kernels import bounds
from benchmarks.kernels.bounds import Peaks, Roof, Work
from benchmarks.kernels.formats.workload import Problem

PUBLISHED_FOR = "B200"
METADATA = "metadata.json"


class AnchorError(ValueError):
    """Figures that are missing, damaged, or of another device or provenance than those they are to join."""


class Provenance(StrEnum):
    """Where baselines come from. The bounds beside them: published, scaled from those, or computed by `bounds`."""

    PUBLISHED = "published-B200"
    SCALED = "scaled"
    MEASURED = "measured"


@dataclass(frozen=True)
class Anchor:
    """Of one workload, in milliseconds. `variant` names what the baseline is the latency of, where that is known."""

    bound_ms: float
    baseline_ms: float
    variant: str = ""

    def __post_init__(self) -> None:
        for name, value in (("bound", self.bound_ms), ("baseline", self.baseline_ms)):
            if not (math.isfinite(value) and value > 0):
                raise AnchorError(f"{name} of {value} ms: an anchor is a positive time")

    @property
    def headroom(self) -> float:
        """T_b / T_SOL."""
        return self.baseline_ms / self.bound_ms


Figures = Mapping[str, Mapping[str, Anchor]]  # problem -> uuid of a workload -> anchor


@dataclass(frozen=True)
class Anchors:
    """All anchors of one device and one provenance."""

    device: str
    provenance: Provenance
    figures: Figures

    def get(self, problem: str, uuid: str) -> Anchor | None:
        return self.figures.get(problem, {}).get(uuid)

    def __len__(self) -> int:
        return sum(len(of_problem) for of_problem in self.figures.values())


def published(problems: Iterable[Problem]) -> Anchors:
    """What `metadata.json` beside each definition says for a B200. Problems without that file have no anchor.

    The figure to read stands in `sol.per_workload`, in the order of `workload.jsonl`. (`sol.baseline_latency_ms` above
    it is no baseline: it is the geometric mean of the bounds.) Raises AnchorError for a file that does not fit.
    """
    figures: dict[str, dict[str, Anchor]] = {}
    for problem in problems:
        path = problem.folder / METADATA if problem.folder else None
        if path is not None and path.is_file():
            figures[problem.definition.name] = _of_metadata(problem, path)
    return Anchors(PUBLISHED_FOR, Provenance.PUBLISHED, figures)


def _of_metadata(problem: Problem, path: Path) -> dict[str, Anchor]:
    try:
        metadata: Any = json.loads(path.read_text())
        rows = metadata["sol"]["per_workload"]
        figures = [(dict(row["axes"]), float(row["sol_ms"]), float(row["baseline_latency_ms"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AnchorError(f"{path}: sol.per_workload cannot be read ({error!r}); fetch the problem again") from error
    if len(figures) != len(problem.workloads):
        raise AnchorError(f"{path}: {len(figures)} figures for {len(problem.workloads)} workloads; fetch both together")
    anchors = {}
    for workload, (axes, bound, baseline) in zip(problem.workloads, figures, strict=True):
        resolved = problem.definition.resolve(workload.axes)
        if any(resolved.get(name, value) != value for name, value in axes.items()):
            raise AnchorError(f"{path}: figures of other axes than workload {workload.uuid}; fetch both together")
        anchors[workload.uuid] = Anchor(bound, baseline)
    return anchors


Works = Mapping[str, Mapping[str, Work]]  # problem -> uuid of a workload -> what it costs


def scaled(source: Anchors, device: str, works: Works | None = None) -> Anchors:
    """Published anchors carried over to `device` by the ratio of the datasheets' peaks.

    Bound and baseline are scaled alike, so a kernel that is as far from both as it was there keeps its score. The ratio
    is that of memory or of matmuls where `works` show which of them made the published bound, else between the two.
    """
    if source.provenance is not Provenance.PUBLISHED:
        raise AnchorError(f"{source.provenance} anchors of {source.device}: only published ones can be scaled")
    here, there = bounds.datasheet(source.device), bounds.datasheet(device)
    figures: dict[str, dict[str, Anchor]] = {}
    for problem, of_problem in source.figures.items():
        figures[problem] = {}
        for uuid, anchor in of_problem.items():
            work = (works or {}).get(problem, {}).get(uuid)
            times = bounds.ratio(roof(anchor.bound_ms, work, here), here, there)
            figures[problem][uuid] = Anchor(anchor.bound_ms * times, anchor.baseline_ms * times)
    return Anchors(there.device, Provenance.SCALED, figures)


def roof(published_ms: float, work: Work | None, peaks: Peaks) -> Roof:
    """Which roof a published bound was made of; every fp32 matmul was priced at the bf16 rate there."""
    if work is not None:
        fp32 = (bounds.Precision.TF32, bounds.Precision.FP32)
        macs: dict[bounds.Precision, int] = {}
        for precision, count in work.macs.items():
            priced_as = bounds.Precision.BF16 if precision in fp32 else precision
            macs[priced_as] = macs.get(priced_as, 0) + count
        work = Work(work.bytes, macs)
    return bounds.roof_of(published_ms, work, peaks)
