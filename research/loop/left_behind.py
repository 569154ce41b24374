"""What becomes of a candidate that `main` leaves behind: not begun, or early in a stage, it is moved there.

To confirm it against a baseline that is gone would cost as much as to confirm it on the new one, which would have to
follow anyhow. A machine takes the next pair before it has reported the last one, so one pair of it may have begun; what
is half way to its first look goes on to it if it has gained so far; if not, it stops there, and nothing is moved. What
was seen of a candidate stays, as a verdict that nothing was settled. What nobody has begun to measure is cancelled:
there is nothing to say of it. What is being screened is screened to the end, which is cheap; where its extension would
follow, which nobody has begun, a new screen on `main` takes less.
"""

from __future__ import annotations

import hashlib

from django.db import transaction

from research.loop.carry import on_top
from research.loop.commit import adopt_commit, message_of
from research.loop.evidence import conclude, gather
from research.loop.memory import recipe_of, steps_of
from research.loop.problems import is_alike
from research.loop.together import apply_again, follow
from research.models import Experiment, Idea, Thread, Trial
from research.models.trial import TrialQuerySet
from research.repository import Conflict, Repository
from research.validation import rules
from research.validation.rules import Rule, Stage


def step(thread: Thread) -> bool:
    """Move a candidate to where `main` stands now, or end it. True where rows changed."""
    if not thread.project.is_running or thread.head == thread.project.champion:
        return False
    for experiment in thread.experiments.running().select_related("candidate__idea").order_by("pk"):
        is_early = _is_early(experiment)
        if not (is_early or _has_lost(experiment)) or not _is_left_behind(thread, experiment):
            continue
        if not is_early:
            return _end(experiment, "main moved on, and it has not gained so far")
        with transaction.atomic():  # a crash in between would leave a change that nobody goes on with
            if not _end(experiment, "main moved on before it was confirmed, and it is measured there again"):
                continue
            follow(thread, "followed main before its candidate was measured")
            idea = _idea(thread, experiment)
        _implement(idea, experiment)  # git, outside the transaction
        return True
    return False


def _is_early(experiment: Experiment) -> bool:
    """Not begun, its extension planned and not begun, or less than half of its first look at confirm pairs begun."""
    confirms = experiment.trials.filter(stage=str(Stage.CONFIRM))
    if confirms.exists():
        begun = confirms.exclude(state=Trial.State.WAITING).values("pair").distinct().count()
        return bool(2 * begun < Rule.from_json(experiment.rule).looks[0])
    return _waits(experiment.trials.filter(stage=str(Stage.EXTEND))) or _is_untouched(experiment)


def _is_untouched(experiment: Experiment) -> bool:
    """Planned, and no machine has taken any of it."""
    return _waits(experiment.trials.all())


def _waits(trials: TrialQuerySet) -> bool:
    """There are some, and no machine has taken any."""
    return trials.exists() and not trials.exclude(state=Trial.State.WAITING).exists()


def _has_lost(experiment: Experiment) -> bool:
    """There are confirm pairs, and they have not gained in the mean."""
    rule = Rule.from_json(experiment.rule)
    gains = [rule.gain(pair) for pair in experiment.complete_pairs() if pair.stage is Stage.CONFIRM]
    return bool(gains) and sum(gains) <= 0


def _is_left_behind(thread: Thread, experiment: Experiment) -> bool:
    """`main` went on from its baseline, which the thread still stands on, and changed what it measures."""
    project, base = thread.project, experiment.baseline_commit
    if project.champion == base or thread.head != base or experiment.candidate is None:
        return False
    if is_alike(project, base, project.champion, experiment.problems):
        return False
    return Repository(project.repository_path).is_ancestor(base, project.champion)


def _end(experiment: Experiment, why: str) -> bool:
    """True for the caller that ends it."""
    if _is_untouched(experiment):
        return experiment.cancel("main moved on before it was measured, and it is measured there instead")
    evidence, rule = gather(experiment), Rule.from_json(experiment.rule)
    return conclude(experiment, evidence, rules.stop(evidence, rule, why))


def _idea(thread: Thread, experiment: Experiment) -> Idea:
    """The same change as an idea of its own."""
    assert experiment.candidate is not None
    before = experiment.candidate.idea
    return Idea.add(
        thread, Idea.next_number(thread), kind=before.kind, title=before.title, hypothesis=before.hypothesis,
        expected_effect=before.expected_effect, cost_guess=before.cost_guess, steps=before.steps, files=before.files,
        tags=before.tags, mode=before.mode, model=before.model, researcher=before.researcher, trusted=before.trusted,
        plan=f"{before.plan}\n{experiment} was left behind by main.".strip(),
        fingerprint=hashlib.sha256(f"left behind {experiment.public_id}".encode()).hexdigest(),
    )  # fmt: skip


def _implement(idea: Idea, experiment: Experiment) -> None:
    """The change as a commit on `main`; refused where it does not stand there."""
    candidate, project = experiment.candidate, idea.project
    assert candidate is not None
    repository, steps, champion = Repository(project.repository_path), steps_of(idea.steps), project.champion
    try:
        commit = repository.rebase(candidate.parent, candidate.commit, champion, message_of(idea), idea.created)
    except Conflict as conflict:
        apply_again(idea, champion, steps, conflict)
        return
    adopt_commit(idea, champion, commit, on_top(recipe_of(project, champion), steps))
