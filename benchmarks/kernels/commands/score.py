"""`score`: the headline of solutions and of the references they are compared to, by scaled and by measured anchors."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.kernels import anchors, bounds, measured, score, suite
from benchmarks.kernels.anchors import Anchors, Provenance
from benchmarks.kernels.bounds import BoundError, Peaks, Work
from benchmarks.kernels.formats.workload import Problem
from benchmarks.kernels.prepare import read_works
from benchmarks.kernels.score import Board, Headline
from benchmarks.kernels.sweep import EAGER

HELP = "the headline of solutions that `suite` measured, beside that of the references that `anchors` measured"
GOOD = 0.6  # a score that is told of


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--problems", type=Path, help="a folder of prepared problems; others take longer")
    parser.add_argument("--store", type=Path, required=True, help="what `anchors --measure` wrote, on the same device")
    parser.add_argument("--lines", type=Path, nargs="*", default=[], help="what `suite --out` wrote; later ones count")
    parser.add_argument("--json", action="store_true", help="on one line")


def run(options: argparse.Namespace, problems: Sequence[Problem]) -> int:
    """Raises AnchorError for a missing or damaged store, FormatError for damaged lines."""
    store = measured.Store(options.store)
    rows = store.rows()
    if not rows:
        raise anchors.AnchorError(f"{options.store}: nothing was measured yet; run `anchors --measure` first")
    lines = [line for path in options.lines for line in suite.all_lines(path)]
    peaks, works = bounds.datasheet(rows[0].device), {problem.name: works_of(problem) for problem in problems}
    scaled = anchors.scaled(anchors.published(problems), rows[0].device, works)
    own = measured.trusted(store.anchors(bounds_of(works, peaks)))
    own = Anchors(scaled.device, Provenance.MEASURED, own.figures)
    eager: dict[str, dict[str, float | None]] = {}
    for row in rows:
        if row.variant == EAGER and row.latency_ms is not None:
            eager.setdefault(row.problem, {})[row.uuid] = row.latency_ms
    now = {name: dict(times) for name, times in eager.items()}
    for line in lines:
        if line.score is not None:
            now.setdefault(line.problem, {}).update({uuid: times.latency_ms for uuid, times in line.times.items()})
    told = {
        "device": rows[0].device, "problems": len(problems),
        "eager": about(score.headline(problems, eager, scaled, own)),
        "now": about(score.headline(problems, now, scaled, own)),
    }  # fmt: skip
    print(json.dumps(told) if options.json else text(told))
    return 0


def works_of(problem: Problem) -> dict[str, Work]:
    """As `prepare` found them; else found now."""
    if problem.folder is not None and (known := read_works(problem.folder)):
        return known
    from benchmarks.kernels.cost import CostError, cost  # torch: seconds to import

    found = {}
    for workload in problem.workloads:
        try:
            found[workload.uuid] = cost(problem.definition, workload).work
        except CostError:
            continue
    return found


def bounds_of(works: Mapping[str, Mapping[str, Work]], peaks: Peaks) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for problem, of_problem in works.items():
        for uuid, work in of_problem.items():
            try:
                found.setdefault(problem, {})[uuid] = bounds.bound_ms(work, peaks)
            except BoundError:
                continue
    return found


def about(found: Headline) -> dict[str, Any]:
    return {str(board.provenance): about_board(board) for board in (found.scaled, found.measured)}


def about_board(board: Board) -> dict[str, Any]:
    return {
        "score": round(board.headline, 4), "anchored": board.anchored, "attempted": board.attempted,
        "good": sum(row.score >= GOOD for row in board.rows), "over_anchored": _rounded(board.over_anchored),
        "below_bound": len(board.below_bound),
        "collections": {name: round(value, 4) for name, value in board.collections.items() if name},
    }  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def text(told: Mapping[str, Any]) -> str:
    lines = [f"{told['device']}, {told['problems']} problems; what was not measured or has no anchor counts 0"]
    lines += _rows("eager", told["eager"])
    lines += _rows("now", told["now"])
    return "\n".join(lines)


def _rows(name: str, boards: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    for provenance, row in boards.items():
        yield (
            f"{name:6} {provenance:9} {row['score']:.3f}  {row['good']} of {row['attempted']} at {GOOD} or above, "
            f"{row['anchored']} with anchors throughout, {row['below_bound']} workloads below their bound"
        )
