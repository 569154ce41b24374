"""What a campaign came to, as the JSON object that checks rely on."""

from __future__ import annotations

from statistics import median
from typing import Any

from django.db.models import Count, Q, Sum

from research.loop.account import tried
from research.loop.beside import calibrations, combinations, interactions
from research.loop.headline import headline_of
from research.loop.parts import split_json, split_of
from research.loop.screens import points_of, relation_of
from research.management.stretches import stretches
from research.management.waste import waste
from research.models import Call, Experiment, Lease, MergeRequest, Project, Result, Verdict
from research.validation.predictions import predictions
from research.validation.yields import yields


def summary(project: Project) -> dict[str, Any]:
    """Scores are means over the closing pairs; seconds are wall seconds unless the name says otherwise."""
    project.refresh_from_db()
    results = Result.objects.filter(trial__project=project)
    start, champion, pairs = closing_scores(project)
    verdicts = Verdict.objects.filter(experiment__project=project).values("kind").annotate(n=Count("pk"))
    timed = [row for row in results.values_list("seconds", flat=True) if "train_wall" in row and "total_wall" in row]
    gaps = [gap.seconds for gap in Lease.objects.filter(trial__project=project).idle_gaps()]
    slots = max([result.machine.slots for result in results.select_related("machine")[:1]], default=1)
    lower = project.contract.metric.lower_is_better
    gain = (start - champion) / start * (1 if lower else -1) if start and champion else None
    device_seconds = results.aggregate(total=Sum("device_seconds"))["total"] or 0.0
    return {
        "project": project.name,
        "metric": project.contract.metric.name,
        "start_score": start,
        "champion_score": champion,
        "gain_percent": None if gain is None else round(100 * gain, 3),
        "closing_pairs": pairs,
        "closing_split": closing_split(project),
        "experiments": {row["kind"]: row["n"] for row in verdicts},
        "ended_in_verdict": sum(row["n"] for row in verdicts),
        "trials": results.count(),
        "merges": project.merge_requests.filter(state=MergeRequest.State.MERGED).count(),
        "open_requests": project.merge_requests.open().count(),
        "rollbacks": project.merge_requests.rolled_back().count(),
        "combinations": combined(project),
        "interactions": [read.to_json() for _, read in interactions(project)],
        "audits": [point.to_json() for point in calibrations(project)],
        **newest_ablation(project),
        "device_seconds": round(device_seconds, 1),
        **waste(project, gain, device_seconds),
        "wall_seconds": round(project.wall_seconds, 1),
        "budgeted_share": _share(sum(row["train_wall"] for row in timed), slots * project.wall_seconds),
        "stretches": stretches(project),
        "idle_median_s": round(median(gaps), 3) if gaps else None,
        "idle_max_s": round(max(gaps), 3) if gaps else None,
        "beyond_budget_median_s": _median([row["total_wall"] - row["train_wall"] for row in timed]),
        "isolation_level": min(results.values_list("isolation_level", flat=True), default=None),
        **asked_of_models(project),
        "researchers": sorted(set(project.threads.values_list("researcher", flat=True))),
        "yields": [row.to_json() for row in yields(tried(project), project.price_a_second)],
        "predictions": [row.summary() for row in predictions(tried(project))],
        **screened_apart(project),
        **over_problems(project),
        "data_id": project.data_id,
    }


def asked_of_models(project: Project) -> dict[str, Any]:
    """Sessions with models and what they cost; money None where the price of a model is not known."""
    spent = Call.objects.filter(session__project=project).committed()
    return {
        "sessions": project.sessions.count(),
        "model_calls": spent.calls,
        "model_tokens": spent.tokens,
        "model_money": None if spent.unpriced else float(spent.money),
    }


def screened_apart(project: Project) -> dict[str, Any]:
    """Where another preset screens: which, and what its gains said of those at the project's own."""
    if not project.screen_preset:
        return {}
    relation = relation_of(project)
    return {
        "screen_preset": project.screen_preset,
        "fidelity": relation.to_json() if relation else None,
        "fidelity_points": [point.to_json() for point in points_of(project)],
    }


def over_problems(project: Project) -> dict[str, Any]:
    """Of many problems: how many the merges improved, and champion over start, the geometric mean over all of them."""
    headline = headline_of(project)
    if headline is None:
        return {}
    ratios = {name: round(ratio, 4) for name, ratio in headline.ratios.items()}
    return {
        "problems": len(ratios),
        "problems_improved": headline.improved,
        "mean_ratio": round(headline.mean, 5),
        "problem_ratios": ratios,
    }


def combined(project: Project) -> dict[str, int]:
    """Combinations of what different threads found: measured, and landed on `main`."""
    merged = Q(merge_request__state=MergeRequest.State.MERGED)
    found = combinations(project).filter(experiment__isnull=False)
    return {"tried": found.count(), "merged": found.filter(merged).count()}


def newest_ablation(project: Project) -> dict[str, Any]:
    """What each change is worth, as far as it has been measured, and of which commit; None where nobody asked.

    `main` may have moved since it was asked for.
    """
    newest = project.ablations.order_by("-pk").first()
    rows = [row.to_json() for row in newest.rows()] if newest else None
    return {"ablation": rows, "ablation_of": newest.champion if newest else None}


def closing_split(project: Project) -> dict[str, Any] | None:
    """The closing gain taken apart: more steps in the budget, or a better model at equal steps."""
    experiment = Experiment.objects.filter(key=f"closing-{project.public_id}").first()
    return split_json(split_of(experiment)) if experiment else None


def closing_scores(project: Project) -> tuple[float | None, float | None, list[list[float]]]:
    """Mean score of start and champion over the closing pairs, and the pairs [start, champion]."""
    experiment = Experiment.objects.filter(key=f"closing-{project.public_id}").first()
    if experiment is None:
        return None, None, []
    pairs = [list(scores) for scores in experiment.scores()]
    if not pairs:
        return None, None, []
    return sum(p[0] for p in pairs) / len(pairs), sum(p[1] for p in pairs) / len(pairs), pairs


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def _median(values: list[float]) -> float | None:
    return round(median(values), 3) if values else None
