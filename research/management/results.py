"""What a project came to beyond its closing pairs, as JSON: quality against time, transfers, parts of gains."""

from __future__ import annotations

from typing import Any

from research.loop.parts import split_json, split_of
from research.loop.transfer import how_much_sooner, over_time, transferred
from research.models import Project


def results(project: Project) -> dict[str, Any]:
    project.refresh_from_db()
    sooner = how_much_sooner(project)
    return {
        "project": project.name,
        "metric": project.contract.metric.name,
        "unit": project.contract.metric.unit,
        "over_time": {name: [row.to_json() for row in rows] for name, rows in over_time(project).items()},
        "sooner": {name: [{**row.to_json(), "words": row.words} for row in rows] for name, rows in sooner.items()},
        "transfers": [
            {
                **row.gain.to_json(), "split": split_json(split_of(row.experiment)),
                "preset": row.experiment.preset or project.preset,
                "baseline": row.scores[0], "candidate": row.scores[1], "number": row.experiment.number,
                "pairs_scores": [list(scores) for scores in row.experiment.scores()],
            }
            for row in transferred(project)
        ],
    }  # fmt: skip
