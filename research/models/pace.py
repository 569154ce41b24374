"""How long pairs take on the device, by what the newest ones took: what a sitting can still begin."""

from __future__ import annotations

from statistics import median

from django.db.models import QuerySet

from benchmarks.preset import Preset
from research.models.project import Project
from research.models.trial import Result, Trial

# Seconds of a trial beyond its budget, until one has been measured. On a GPU at most so many times the budget: what
# is timed shortly is judged shortly.
USUAL_OVERHEAD, OF_THE_BUDGET = {"cpu": 5.0, "cuda": 20.0}, 4.0
NEWEST_RESULTS = 40  # that say how long a trial takes
TOGETHER = 2  # commits at least that compile ahead at a time; each has told of its share


def usual_pair_seconds(sizes: Preset) -> float:
    """About how long a pair takes before one has been measured: training, start of the sandboxes, scoring."""
    alone = sizes.budget_seconds + _usual_overhead(sizes)
    return 1.6 * sizes.budget_seconds + 2 if sizes.side_by_side else 2 * alone


def pair_seconds(project: Project, preset: str = "", problems: int = 1) -> float:
    """Seconds that a usual pair takes under the project's preset, or under another one; on so many of its problems."""
    sizes = project.contract.preset(preset) if preset else project.sizes
    if project.problems:
        return (1 if sizes.side_by_side else 2) * _trial_seconds(project, preset, problems)
    return usual_pair_seconds(sizes) if sizes.side_by_side else 2 * _trial_seconds(project, preset)


def expected_seconds(trial: Trial) -> float:
    """Seconds that the pair of a waiting trial may take: the usual ones, and compiling where a commit is new.

    A baseline that other screens have measured already is not measured again, or hardly ever.
    """
    project = trial.project
    problems = len(trial.problems) or 1
    if trial.sizes.side_by_side:
        return pair_seconds(project, trial.preset, problems)
    arms = Trial.objects.filter(experiment=trial.experiment_id, stage=trial.stage, pair=trial.pair)
    known = Result.objects.filter(trial__project=project)
    commits = set(arms.values_list("commit", flat=True))
    new = commits - set(known.filter(trial__commit__in=commits).values_list("trial__commit", flat=True))
    shared = trial.experiment.shares_baseline(trial.stage) and known.filter(
        trial__commit=trial.experiment.baseline_commit, trial__seed=trial.seed, trial__arm=Trial.Arm.BASELINE
    )
    measured = max(1, arms.count() - (1 if shared and shared.exists() else 0))
    compiling = max((_compiling(row) for row in _newest(known)), default=0.0) if new else 0.0
    return measured * _trial_seconds(project, trial.preset, problems) + compiling


def _trial_seconds(project: Project, preset: str, problems: int = 1) -> float:
    """A trial of several problems shares its budget among them; what comes on top, each has for itself."""
    sizes = project.contract.preset(preset) if preset else project.sizes
    own = Result.objects.filter(trial__project=project, score__isnull=False)
    own = own.filter(trial__preset__in=("", preset) if preset in ("", project.preset) else (preset,))
    newest = own.order_by("-pk").values_list("seconds", "trial__problems")[:NEWEST_RESULTS]
    took = [(_alone(row), len(measured) or 1) for row, measured in newest if "total_wall" in row]
    if not project.problems:
        return median(seconds for seconds, _ in took) if took else sizes.budget_seconds + _usual_overhead(sizes)
    over = [max(0.0, seconds - sizes.budget_seconds) / count for seconds, count in took]
    over = over or [_usual_overhead(sizes)]
    return sizes.budget_seconds + problems * median(over)


def _usual_overhead(sizes: Preset) -> float:
    usual = USUAL_OVERHEAD[sizes.device]
    return min(usual, OF_THE_BUDGET * sizes.budget_seconds) if sizes.device == "cuda" else usual


def _newest(results: QuerySet[Result]) -> list[dict[str, float]]:  # seconds of their phases
    return list(results.order_by("-pk").values_list("seconds", flat=True)[:NEWEST_RESULTS])


def _alone(seconds: dict[str, float]) -> float:
    """What a trial would have taken with the device to itself, compiled already."""
    more = seconds.get("compiled_ahead", 0.0) + seconds.get("tried_beside", 0.0)
    return seconds["total_wall"] - more + seconds.get("overlapped", 0.0)


def _compiling(seconds: dict[str, float]) -> float:
    return max(seconds.get("warm_up", 0.0), TOGETHER * seconds.get("compiled_ahead", 0.0))
