"""Which problems are there, and which of them can run on this CPU and on an H200; no torch, nothing is run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.kernels.formats.loader import find_blob
from benchmarks.kernels.formats.workload import Problem, Safetensors, Workload

GIB = 1 << 30
H200_BYTES = 139 * GIB  # usable
COPIES = 2  # inputs and outputs beside those of the reference: what a trial holds at the least


@dataclass(frozen=True)
class Fit:
    """How many workloads can run on a device, and why the others cannot (empty: all can)."""

    workloads: int
    reason: str = ""


@dataclass(frozen=True)
class Row:
    id: int | None
    name: str
    collection: str
    workloads: int
    cpu: Fit
    h200: Fit


def rows(problems: Sequence[Problem], cpu_bytes: int | None = None) -> list[Row]:
    memory = physical_memory() if cpu_bytes is None else cpu_bytes
    return [
        Row(problem.id, problem.name, problem.collection, len(problem.workloads),
            fit(problem, memory, "CPU"), fit(problem, H200_BYTES, "H200"))
        for problem in problems
    ]  # fmt: skip


def fit(problem: Problem, memory: int, device: str) -> Fit:
    """By the dtypes, the files and the declared bytes; what a reference needs in between is not known here."""
    if problem.definition.uses_fp4:
        return Fit(0, f"needs NVFP4, which no {device} has")
    there = [workload for workload in problem.workloads if not missing_files(problem, workload)]
    sizes = [problem.definition.declared_bytes(workload.axes) * COPIES for workload in there]
    fits = sum(size <= memory for size in sizes)
    reasons = []
    if lacking := len(problem.workloads) - len(there):
        reasons.append(f"{lacking} lack their safetensors files")
    if fits < len(there):
        large = f"{max(sizes) / GIB:.1f} GiB" if fits else f"{min(sizes) / GIB:.1f} GiB or more"
        reasons.append(f"{len(there) - fits} need up to {large}" if fits else f"all need {large}")
    return Fit(fits, "; ".join(reasons))


def missing_files(problem: Problem, workload: Workload) -> list[str]:
    paths = {source.path for source in workload.inputs.values() if isinstance(source, Safetensors)}
    return sorted(path for path in paths if find_blob(path, problem.folder) is None)


def physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def table(found: Sequence[Row]) -> str:
    """Lines as wide as a terminal, and a last one that counts."""
    lines = [f"{'id':>3}  {'collection':16}  {'workloads':>9}  {'CPU':>7}  {'H200':>7}  problem"]
    for row in found:
        id = "" if row.id is None else str(row.id)
        of = f"/{row.workloads}"
        lines.append(f"{id:>3}  {row.collection or '-':16}  {row.workloads:9}  {row.cpu.workloads:>4}{of:3}"
                     f"  {row.h200.workloads:>4}{of:3}  {row.name}")  # fmt: skip
        for device, fits in (("CPU", row.cpu), ("H200", row.h200)):
            if fits.reason:
                lines.append(f"{'':50}{device}: {fits.reason}")
    return "\n".join((*lines, summary(found)))


def summary(found: Sequence[Row]) -> str:
    parts = []
    for device, fits in (("CPU", [row.cpu for row in found]), ("H200", [row.h200 for row in found])):
        workloads = sum(one.workloads for one in fits)
        parts.append(f"{sum(one.workloads > 0 for one in fits)} ({workloads} workloads) run on {device}")
    return f"{len(found)} problems, {sum(row.workloads for row in found)} workloads; {', '.join(parts)}"


def as_json(found: Sequence[Row]) -> str:
    """One line a problem, and a last line with the names of all."""
    lines = [json.dumps(asdict(row)) for row in found]
    return "\n".join((*lines, json.dumps({"problems": [row.name for row in found]})))
