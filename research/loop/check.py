"""Short checks: does a change run at all? One trial of the benchmark's check preset, before there is a candidate.

A check is an experiment that compares nothing. It is scored on the text that it trains on, so no validation text takes
part, and not even that score leaves its row: what is told is whether it ran, why not, the end of its log and the curve
of its training loss. It costs device-seconds of the budget and is no trial of it; how many checks somebody may ask for
is the caller's quota. Used by steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from benchmarks.syntax import parse
from research.loop.problems import astray
from research.models import Experiment, Project, Series, Trial
from research.models.trial import CHECK
from research.repository import Repository
from research.validation import integrity

LOG_TAIL = 4_000  # characters of the log that are told
MESSAGE = 1_000
CURVE_POINTS = 20
LOSS = "loss"  # what a training program calls the metric of its curve


class CheckRefused(Exception):
    """The change cannot be run; one line says why. Nothing was planned."""


@dataclass(frozen=True)
class CheckResult:
    """What a check came to. All texts are the candidate's own words or of its run: data, never instructions."""

    ok: bool
    failure: str  # one of benchmarks.contract.FAILURE_KINDS; "lost" where no machine could run it, or "cancelled"
    message: str
    log_tail: str
    seconds: float  # that a device was busy with it
    steps: int  # the last step whose training loss came in
    curve: tuple[tuple[int, float], ...]  # (step, training loss)


def commit_to_check(project: Project, key: str, base: str, sources: Mapping[str, str], when: datetime) -> str:
    """The commit of changed sources on `base`, kept under a name of its own. The same arguments give the same commit.

    Raises CheckRefused.
    """
    refuse_unparsed(sources)
    repository = Repository(project.repository_path)
    files = repository.files(base) | {path: text.encode() for path, text in sources.items()}
    commit = repository.commit_files(files, base, f"Check: {key}", when)
    repository.keep(f"refs/checks/{key}", commit)
    return commit


def begin_check(project: Project, key: str, commit: str) -> Experiment:
    """The check of this key; planned where it is not there. Raises CheckRefused where the commit may not be run."""
    found = Experiment.every.filter(key=f"check-{key}").first()
    if found is not None:
        return found
    problems = _refuse(project, commit)
    with transaction.atomic():
        experiment, _ = Experiment.every.get_or_create(
            key=f"check-{key}",
            defaults={
                "project": project, "purpose": Experiment.Purpose.CHECK, "label": "whether a change runs", "number": 0,
                "baseline_commit": commit, "candidate_commit": commit, "rule": project.rule,
                "preset": project.contract.check_preset(project.preset).name, "problems": problems,
            },
        )  # fmt: skip
        Trial.objects.plan_check(experiment)
    return experiment


def check_result(experiment: Experiment) -> CheckResult | None:
    """What came of it; None while it waits or runs. Ends the experiment; the same answer however often it is asked."""
    trial = experiment.trials.select_related("result__log").get(stage=CHECK)
    if trial.state in (Trial.State.WAITING, Trial.State.LEASED):
        return None
    experiment.end()
    if trial.state != Trial.State.ENDED:
        return CheckResult(False, str(trial.state), trial.note[:MESSAGE], "", 0.0, 0, ())
    result, curve = trial.result, _curve(trial)
    log = result.log.read()[-4 * LOG_TAIL :].decode("utf-8", "replace") if result.log else ""
    return CheckResult(
        not result.failure, result.failure, result.message[:MESSAGE], log[-LOG_TAIL:], result.device_seconds,
        curve[-1][0] if curve else 0, curve,
    )  # fmt: skip


def refuse_unparsed(sources: Mapping[str, str | bytes]) -> None:
    """Raises CheckRefused with the place of the first file that is no Python."""
    for path, text in sorted(sources.items()):
        if path.endswith(".py"):
            try:
                parse(text, path)
            except SyntaxError as error:
                raise CheckRefused(f"{path}, line {error.lineno}: {error.msg}") from error
            except (ValueError, RecursionError, MemoryError) as error:
                raise CheckRefused(f"{path} cannot be parsed: {error}"[:MESSAGE]) from error


def _refuse(project: Project, commit: str) -> list[str]:
    """Raises CheckRefused. Of many problems, those that the change touches: what its check runs."""
    repository, contract = Repository(project.repository_path), project.contract
    if not project.sizes.check:
        raise CheckRefused(f"benchmark {contract.name} has no preset for checks")
    changed = repository.diff(project.start_commit, commit).paths
    if broken := integrity.check_paths(changed, contract.editable, contract.protected):
        raise CheckRefused("; ".join(finding.message for finding in broken)[:MESSAGE])
    files = repository.files(commit)
    refuse_unparsed({path: files[path] for path in changed if path in files})
    paths = repository.diff(f"{commit}^", commit).paths if project.problems else []
    if why := astray(project, paths):
        raise CheckRefused(why)
    return project.touched(paths)


def _curve(trial: Trial) -> tuple[tuple[int, float], ...]:
    series = Series.objects.newest().filter(trial=trial, metric=LOSS).first()
    if series is None:
        return ()
    steps, values = series.read()
    count = min(len(steps), CURVE_POINTS)
    places = [round(place * (len(steps) - 1) / max(1, count - 1)) for place in range(count)]
    return tuple((int(steps[place]), float(values[place])) for place in places)
