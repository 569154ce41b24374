"""Whether published times give the published scores: T_b scores 0.5 and T_SOL 1 on every workload of a folder.

python -m tests.bench.kernel_scores FOLDER, of problems in the official layout with `metadata.json` beside them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from benchmarks.kernels import anchors, bounds, score
from benchmarks.kernels.formats.loader import load_problems


def measure(folder: Path) -> dict[str, object]:
    problems = load_problems(folder)
    published = anchors.published(problems)
    found: dict[str, object] = {"problems": len(problems), "anchors": len(published)}
    for each in (published, *(anchors.scaled(published, name) for name in bounds.DATASHEET)):
        for time in ("bound_ms", "baseline_ms"):
            latencies = {name: {uuid: getattr(anchor, time) for uuid, anchor in rows.items()}
                         for name, rows in each.figures.items()}  # fmt: skip
            board = score.board(problems, latencies, each)
            cells = [cell.score for row in board.rows for cell in row.cells]
            found[f"{each.provenance} {each.device} {time}"] = {
                "headline": board.headline, "least": min(cells), "most": max(cells), **board.collections}  # fmt: skip
    kinds = Counter(score.headroom(anchor) for rows in published.figures.values() for anchor in rows.values())
    return {**found, "headroom": dict(kinds)}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1])), indent=1))
