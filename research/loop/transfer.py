"""Champion, start and rivals measured at other budgets and sizes: quality against training time, and what transfers.

Each is an experiment without a verdict: pairs on one part of the validation text, under the preset asked for. A deeper
model is the same commit with a constant of its files set otherwise, committed beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from django.db import transaction

from benchmarks import edits
from research.loop.beside import bring_to
from research.loop.problems import differing
from research.models import Event, Experiment, NotMergeable, Project
from research.models.experiment import MOST_SEEDS
from research.repository import Repository
from research.validation.combine import Measured, measured
from research.validation.records import Direction, Rule, Stage
from research.validation.sooner import AtBudget, Sooner, sooner

Constants = Mapping[str, Mapping[str, int | float]]  # file -> name -> value


@dataclass(frozen=True)
class Transferred:
    """One measurement: two commits at a preset, with what was set otherwise in both."""

    experiment: Experiment
    gain: Measured
    scores: tuple[float, float]  # means of baseline and candidate


def step(project: Project) -> bool:
    """Go on with what was asked for. True where rows changed."""
    running = project.experiments.running().filter(purpose=Experiment.Purpose.TRANSFER)
    return any([_go_on(experiment) for experiment in running.order_by("pk")])


def ask(
    project: Project, preset: str, pairs: int, constants: Constants | None = None, candidate: str = "", name: str = ""
) -> Experiment:
    """Measure the champion (or `candidate`, called `name`) against the start at a preset. Asking again gives the same.

    Raises NotMergeable, and ContractError where there is no such preset.
    """
    sizes = project.contract.preset(preset)
    if sizes.lane != project.sizes.lane:
        raise NotMergeable(f"{preset} is of another lane than {project.preset}")
    if not 2 <= pairs <= MOST_SEEDS:
        raise NotMergeable(f"ask for 2 to {MOST_SEEDS} pairs")
    subject = candidate or project.champion
    if subject == project.start_commit:
        raise NotMergeable("main still stands on the start: there is nothing to compare with it")
    said = ", ".join(f"{key}={value}" for file in (constants or {}).values() for key, value in file.items())
    baseline, commit = (_sized(project, each, constants or {}, said) for each in (project.start_commit, subject))
    label = f"{name or 'the champion'} against the start at {preset}" + (f", {said}" if said else "")
    key = f"transfer-{project.public_id}-{preset[:20]}-{baseline[:7]}-{commit[:12]}-{pairs}"
    with transaction.atomic():
        found = Experiment.objects.filter(key=key).first()
        if found is not None:
            return found
        experiment = Experiment.objects.create(
            key=key, project=project, purpose=Experiment.Purpose.TRANSFER, label=label[:160], wanted_pairs=pairs,
            number=project.next_experiment_number(), baseline_commit=baseline, candidate_commit=commit,
            rule=project.rule, preset="" if preset == project.preset else preset, confirm_split=_split(project),
            problems=differing(project, baseline, commit),
        )  # fmt: skip
        if candidate:
            experiment.distrust()
        experiment.plan(str(Stage.CONFIRM), pairs)
        Event.record(Event.Kind.EXPERIMENT, f"measuring {label}: {pairs} pairs", experiment=experiment)
    return experiment


def transferred(project: Project) -> list[Transferred]:
    """All that was asked for and has a pair, oldest first."""
    rows = project.experiments.filter(purpose=Experiment.Purpose.TRANSFER).order_by("number")
    found = []
    for experiment in rows:
        if pairs := experiment.complete_pairs():
            gain = measured(experiment.label, pairs, Rule.from_json(experiment.rule))
            means = fmean(pair.baseline for pair in pairs), fmean(pair.candidate for pair in pairs)
            found.append(Transferred(experiment, gain, means))
    return found


def over_time(project: Project) -> dict[str, list[AtBudget]]:
    """Scores of start, champion and rivals by budget, all on one text: what `ask` measured, other sizes aside.

    Empty in a benchmark of many problems: experiments on different ones have no common curve.
    """
    if project.problems:
        return {}
    names = {project.start_commit: "start", project.champion: "champion"} | rivals(project)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names.values()}
    for experiment in project.experiments.filter(purpose=Experiment.Purpose.TRANSFER).order_by("number"):
        preset = experiment.preset or project.preset
        for commit, place in ((experiment.baseline_commit, 0), (experiment.candidate_commit, 1)):
            scores = [pair[place] for pair in experiment.scores()]
            if commit in names and scores:
                found[names[commit]].setdefault(preset, []).extend(scores)
    return {name: _by_budget(project, rows) for name, rows in found.items() if rows}


def _by_budget(project: Project, rows: Mapping[str, Sequence[float]]) -> list[AtBudget]:
    presets = project.contract.presets
    found = [AtBudget(preset, presets[preset].budget_seconds, tuple(scores)) for preset, scores in rows.items()]
    return sorted(found, key=lambda row: row.seconds)


def rivals(project: Project) -> dict[str, str]:
    """Commit -> name of what was brought from elsewhere to be measured beside the champion."""
    rows = project.experiments.filter(purpose=Experiment.Purpose.RIVAL).order_by("number")
    return dict(rows.values_list("candidate_commit", "label"))


def how_much_sooner(project: Project) -> dict[str, list[Sooner]]:
    """Of everything but the start: when it has what the start has, at each budget that the start was measured at."""
    rows, metric = over_time(project), project.contract.metric
    direction = Direction.LOWER if metric.lower_is_better else Direction.HIGHER
    start = rows.pop("start", [])
    return {
        name: [found for at in start if (found := sooner(start, curve, at.seconds, direction)) is not None]
        for name, curve in rows.items()
    }


def _split(project: Project) -> str:
    """All measurements of a project share one part, so that budgets are compared on the same text."""
    first = project.experiments.filter(purpose=Experiment.Purpose.TRANSFER).order_by("number").first()
    return first.confirm_split if first else ""


def _sized(project: Project, commit: str, constants: Constants, said: str) -> str:
    """The commit with these constants, on top of it; itself where there are none."""
    if not constants:
        return commit
    repository = Repository(project.repository_path)
    files = repository.files(commit)
    for path, values in constants.items():
        if path not in files:
            raise NotMergeable(f"there is no {path} in {commit[:10]}")
        text = files[path].decode()
        for name, value in values.items():
            try:
                text = edits.constant(text, name, value)
            except edits.DoesNotApply as error:
                raise NotMergeable(f"{path} of {commit[:10]}: {error}") from error
        files[path] = text.encode()
    made = repository.commit_files(files, commit, f"Measured with {said}", project.created)
    repository.keep(f"refs/transfer/{made}", made)
    return made


def _go_on(experiment: Experiment) -> bool:
    with transaction.atomic():
        changed = bring_to(experiment, str(Stage.CONFIRM), experiment.wanted_pairs)
        experiment.refresh_from_db(fields=["state"])
        if changed and experiment.state == Experiment.State.ENDED:
            Event.record(Event.Kind.EXPERIMENT, _said(experiment), experiment=experiment)
    return changed


def _said(experiment: Experiment) -> str:
    gain = measured(experiment.label, experiment.complete_pairs(), Rule.from_json(experiment.rule))
    if gain.effect is None:
        return f"{experiment.label} could not be measured; look at the logs"
    between = f" ({gain.low:+.4g} to {gain.high:+.4g})" if gain.low is not None and gain.high is not None else ""
    return f"{experiment.label}: {gain.effect:+.4g}{between} over {gain.pairs} pairs"


def parse_constants(asked: Sequence[str]) -> Constants:
    """`model.py:DEPTH=12` and so on. Raises ValueError with one line."""
    found: dict[str, dict[str, int | float]] = {}
    for one in asked:
        place, _, value = one.partition("=")
        path, _, name = place.partition(":")
        if not (path.endswith(".py") and name.isupper() and value):
            raise ValueError(f"{one!r} is not like model.py:DEPTH=12")
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"{value!r} in {one!r} is no number") from None
        found.setdefault(path, {})[name] = int(number) if number.is_integer() and "." not in value else number
    return found
