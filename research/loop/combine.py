"""Combine what different threads found: two open gains, or two near misses on a common base, merged by git on `main`.

A combination is a candidate like any other and `main` is its only gate. Its parts, each as it stands on `main`, are
measured beside it from the moment it comes to confirmation; that says whether gains add up and is no part of a verdict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from django.db import transaction
from django.db.models import Q

from benchmarks.catalogue import Step, allows
from research.loop.beside import begin, bring_to, combinations
from research.loop.memory import labels_of, recipe_of, steps_of
from research.loop.together import bring_together, merged
from research.models import Branch, Experiment, Idea, Project, Thread, Verdict
from research.repository import Conflict, Repository
from research.validation.rules import Stage

SHARE = 0.25  # of a project's trials, parts included
PARENT_PAIRS = 4
LOOKED_AT = 12  # near misses of a project, the most promising ones


@dataclass(frozen=True)
class Part:
    """One thread's contribution: what it changed, and how much it promises."""

    thread: Thread
    commit: str
    steps: tuple[Step, ...]  # that `main` lacks
    promise: float  # relative gain
    problems: frozenset[str] = frozenset()  # of many, those that it changes

    @property
    def label(self) -> str:
        names = ", ".join(step.technique for step in self.steps) or self.commit[:7]
        return f"thread {self.thread.number}: {names}"[:160]


def step(thread: Thread) -> bool:
    """Make a combination of this thread's best with another's a candidate. True where rows changed."""
    project = thread.project
    if thread.experiments.running().exists() or thread.waiting_candidate or project.threads.count() < 2:
        return False
    for mine, other in pairs_of(thread):
        fingerprint = _fingerprint(mine, other)
        known = Idea.objects.filter(thread__project=project, fingerprint=fingerprint).first()
        if known is None and not _affordable(project):
            return False
        idea = _claim(mine, other, fingerprint)
        if idea is None:
            continue
        make(idea, mine, other)
        return True
    return False


def pairs_of(thread: Thread) -> Iterator[tuple[Part, Part]]:
    """What may be combined, the most promising first: open gains of two threads, else near misses of two threads."""
    threads = [other for other in thread.project.threads.exclude(pk=thread.pk) if _leaves_to(thread, other)]
    repository = Repository(thread.project.repository_path)
    if mine := _open_gain(thread):
        gains = [gain for other in threads if (gain := _open_gain(other)) and _both_new(repository, mine, gain)]
        yield from ((mine, gain) for gain in sorted(gains, key=lambda gain: -gain.promise) if _allowed(mine, gain))
    elif thread.head == thread.project.champion:
        yield from _near_misses(thread, threads, repository)


def make(idea: Idea, mine: Part, other: Part) -> None:
    """The two on `main`, as a candidate that remembers its parts; where they do not stand together, a lesson."""
    project = idea.project
    repository, main = Repository(project.repository_path), project.champion
    try:
        branches = [Branch(part.label, merged(repository, main, [part.commit], idea)) for part in (mine, other)]
    except Conflict:  # one of them does not stand on `main` alone: there is nothing to measure beside
        branches = []
    candidate = bring_together(idea, main, [mine.commit, other.commit], steps_of(idea.steps), branches)
    if candidate is not None:
        for number, branch in enumerate(branches):
            repository.keep(f"refs/parts/{candidate.public_id}/{number}", branch.commit)
        idea.thread.tell(f"{idea.name}: merged, and measured against main")


def parents(project: Project) -> bool:
    """Measure the parts of each combination that is being confirmed, or was. True where rows changed."""
    changed, purpose = False, Experiment.Purpose.PARENT
    over = project.experiments.filter(purpose=purpose).exclude(state=Experiment.State.RUNNING)
    ended = set(over.values_list("key", flat=True))
    confirming = combinations(project).filter(experiment__trials__stage=str(Stage.CONFIRM)).distinct()
    for candidate in confirming.select_related("experiment"):
        for key, branch in zip(candidate.part_keys(), candidate.parts, strict=True):
            if key in ended:
                continue
            part = Experiment.objects.filter(key=key).first()
            if part is None and project.is_running:
                split = candidate.experiment.confirm_split  # gains on other text may differ
                part = begin(
                    project, key, purpose, branch.label, candidate.parent, branch.commit, split,
                    candidate.experiment.problems,  # or its gain is no sum of theirs
                )  # fmt: skip
            changed |= part is not None and bring_to(part, str(Stage.CONFIRM), PARENT_PAIRS)
    return changed


def _leaves_to(thread: Thread, other: Thread) -> bool:
    """Of two threads that could combine, the one with the lower number does; the other where that one rests."""
    return thread.number < other.number or other.state != Thread.State.ACTIVE


def _open_gain(thread: Thread) -> Part | None:
    """The newest open request of a thread, with all it stacks on; none where a finding asks for a person first."""
    project = thread.project
    request = thread.merge_requests.open().filter(commit=thread.head).select_related("verdict").first()
    if request is None:
        return None
    stack = request.stack()
    if stack[0].base != project.champion or any(part.needs_a_look for part in stack):
        return None
    promise = sum(part.verdict.relative or 0.0 for part in stack)
    problems = frozenset(name for part in stack for name in part.verdict.experiment.problems)
    return Part(thread, request.commit, _new_steps(project, request.commit), promise, problems)


def _near_misses(thread: Thread, threads: list[Thread], repository: Repository) -> Iterator[tuple[Part, Part]]:
    """Pairs of near misses with a common base that `main` still stands on, of this thread and another."""
    project = thread.project
    numbers = {other.pk for other in (thread, *threads)}
    there = {step.technique for step in recipe_of(project, project.champion)}
    found = Verdict.objects.filter(
        experiment__project=project, near_miss=True, experiment__purpose=Experiment.Purpose.COMPARE,
        experiment__candidate__branches=[], experiment__thread__in=numbers,
    )  # fmt: skip
    parts = []
    rows = found.select_related("experiment__candidate__idea", "experiment__candidate__thread__project")
    for verdict in rows.order_by("-relative")[:LOOKED_AT]:
        candidate = verdict.experiment.candidate
        assert candidate is not None  # by the filter
        problems = frozenset(verdict.experiment.problems)
        steps = steps_of(candidate.idea.steps)
        part = Part(candidate.thread, candidate.commit, steps, verdict.relative or 0.0, problems)
        if not there & {step.technique for step in part.steps}:
            parts.append((candidate.parent, part))
    both = [
        (base, one, other)
        for (base, one), (their_base, other) in product(parts, parts)
        if one.thread == thread != other.thread and base == their_base and _distinct(one, other)
    ]
    for base, one, other in sorted(both, key=lambda pair: -(pair[1].promise + pair[2].promise)):
        if _allowed(one, other) and repository.is_ancestor(base, project.champion):
            yield one, other


def _new_steps(project: Project, commit: str) -> tuple[Step, ...]:
    there = {step.technique for step in recipe_of(project, project.champion)}
    return tuple(step for step in recipe_of(project, commit) if step.technique not in there)


def _both_new(repository: Repository, one: Part, other: Part) -> bool:
    """Each has something that the other lacks."""
    if repository.is_ancestor(one.commit, other.commit) or repository.is_ancestor(other.commit, one.commit):
        return False
    return _distinct(one, other)


def _distinct(one: Part, other: Part) -> bool:
    """Different techniques, and of many problems a common one: those apart have nothing to do with each other."""
    if (one.problems or other.problems) and not one.problems & other.problems:
        return False
    ours, theirs = ({step.technique for step in part.steps} for part in (one, other))
    return not (ours and theirs) or bool(ours - theirs and theirs - ours)


def _allowed(one: Part, other: Part) -> bool:
    """Steering of the thread that would carry it forbids nothing of it, and no person turned any of it down."""
    project = one.thread.project
    dead = project.lessons.dead_ends()
    refused = {str(row["technique"]) for lesson in dead for row in lesson.techniques}
    names = {step.technique for step in (*one.steps, *other.steps)}
    forbid = set(one.thread.directives.get("forbid", ()))
    return not names & refused and all(allows(labels, set(), forbid) for labels in labels_of(project, names))


def _affordable(project: Project) -> bool:
    """Combinations of threads and their parts have not had more than their share of the trials."""
    mine = Q(experiment__purpose=Experiment.Purpose.PARENT) | Q(experiment__candidate__in=combinations(project))
    trials = project.trials.comparing()
    return trials.filter(mine).count() <= SHARE * trials.count()


def _fingerprint(one: Part, other: Part) -> str:
    """Of a pair of heads, whichever thread combines them: no pair is tried twice."""
    return hashlib.sha256(f"together {' '.join(sorted((one.commit, other.commit)))}".encode()).hexdigest()


def _claim(mine: Part, other: Part, fingerprint: str) -> Idea | None:
    """The idea of this pair, while it is this thread's to make; None where it was tried, or is another thread's."""
    project = mine.thread.project
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)
        known = Idea.objects.filter(thread__project=project, fingerprint=fingerprint).first()
        if known is not None:
            left = known.thread_id == mine.thread.pk and known.state == Idea.State.PROPOSED
            return known if left else None
        have = {step.technique for step in mine.steps}
        steps = (*mine.steps, *(step for step in other.steps if step.technique not in have))
        return Idea.add(
            mine.thread, Idea.next_number(mine.thread), kind=Idea.Kind.COMBINATION, fingerprint=fingerprint,
            title=f"{mine.label} with {other.label}"[:160],
            hypothesis=f"What {mine.label} and {other.label} change is worth more together than main.",
            expected_effect=(mine.promise + other.promise) / 2,
            steps=[step.to_json() for step in steps],
        )  # fmt: skip
