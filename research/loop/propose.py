"""Ask the thread's researcher for the next idea, ahead of time; refuse duplicates with a pointer."""

from __future__ import annotations

import hashlib
import json

from django.db import transaction

from benchmarks.catalogue import Step
from research.loop.decide import researcher_of
from research.loop.memory import view_of
from research.models import Experiment, Idea, MergeRequest, Project, Thread
from research.researchers import RESEARCHERS
from research.researchers.base import Draft, NothingToPropose
from research.validation.yields import KIND_MODES

AHEAD = 1  # ideas kept ready, so that a machine never waits for a proposer
REFUSALS_IN_A_ROW = 5


def step(thread: Thread) -> bool:
    """Propose one idea if too few are ready. True where a row was written."""
    if thread.ideas.ahead().count() >= AHEAD or _waits_for_its_head(thread):
        return False
    number = Idea.next_number(thread)
    view = view_of(thread, number)
    name = researcher_of(thread, number, ())
    try:
        draft = RESEARCHERS[name].propose(view)
    except NothingToPropose as nothing:
        if not _under_way(thread.project):
            thread.finish(str(nothing))
        return False
    idea = _save(thread, number, name, draft)
    if idea is None:  # somebody steered meanwhile
        return True
    if earlier := duplicate_of(thread, idea):
        idea.refuse(f"the same change on the same head was tried in {earlier}", earlier)
        recent = thread.ideas.order_by("-number").values_list("state", flat=True)[:REFUSALS_IN_A_ROW]
        if list(recent) == [Idea.State.REFUSED] * REFUSALS_IN_A_ROW:
            thread.finish(f"the researcher repeated itself {REFUSALS_IN_A_ROW} times; give it another focus")
    return True


def fingerprint_of(head: str, kind: str, steps: tuple[Step, ...]) -> str:
    content = json.dumps([head, kind, [step.to_json() for step in steps]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def duplicate_of(thread: Thread, idea: Idea) -> Experiment | None:
    """The experiment of any thread of the project that tests or tested exactly this on this head."""
    twins = Idea.objects.filter(thread__project=thread.project, fingerprint=idea.fingerprint)
    twins = twins.exclude(pk=idea.pk).exclude(state=Idea.State.REFUSED)
    return Experiment.objects.refusing_repeats().filter(candidate__idea__in=twins).first()


def _save(thread: Thread, number: int, researcher: str, draft: Draft) -> Idea | None:
    """Keep the idea, unless the thread was steered while it was made. The first one under new steering says so."""
    with transaction.atomic():
        fresh = Thread.objects.select_for_update().get(pk=thread.pk)
        if fresh.directives != thread.directives:
            return None
        idea = Idea.add(
            thread, number, kind=draft.kind, title=draft.title, hypothesis=draft.hypothesis, tags=list(draft.tags),
            expected_effect=draft.expected_effect, cost_guess=draft.cost_guess, files=list(draft.files),
            steps=[step.to_json() for step in draft.steps], trusted=RESEARCHERS[researcher].ships_code,
            researcher=researcher, mode=str(KIND_MODES[draft.kind]),
            fingerprint=fingerprint_of(thread.head, draft.kind, draft.steps),
        )  # fmt: skip
        fresh.obeyed(idea.name, idea.techniques)
    return idea


def _waits_for_its_head(thread: Thread) -> bool:
    """To try again what was sent back, the thread first has to leave it; what runs on it ends before that."""
    if not thread.directives.get("try"):
        return False
    left = thread.merge_requests.filter(commit=thread.head)
    return left.exclude(state__in=(MergeRequest.State.OPEN, MergeRequest.State.MERGED)).exists()


def _under_way(project: Project) -> bool:
    """Something of any thread that may bring new ideas once it is over: `main` moves, or a technique is free again."""
    comparing = project.experiments.running().filter(purpose=Experiment.Purpose.COMPARE)
    return comparing.exists() or project.merge_requests.open().exists()
