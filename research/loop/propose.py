"""Ask the thread's researcher for the next idea, ahead of time; refuse duplicates with a pointer."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.db import transaction

from benchmarks.catalogue import CHANGE, Step
from research.loop.asking import answering_model, ask_for_idea, begin_session, ended_without, known_models, latest
from research.loop.decide import LLM, MIXED, researcher_of
from research.loop.memory import view_of
from research.loop.problems import ground_of
from research.loop.repeats import refusal_of, reopen_discards
from research.models import Experiment, FoundTechnique, Idea, MergeRequest, Project, Session, Thread
from research.models.ids import new_id
from research.researchers import RESEARCHERS
from research.researchers.base import NothingToPropose, Proposer
from research.researchers.llm.answers import IdeaAnswer
from research.validation.yields import KIND_MODES

AHEAD = 1  # ideas kept ready, so that a machine never waits for a proposer
REFUSALS_IN_A_ROW = 5


def step(thread: Thread) -> bool:
    """Propose one idea if too few are ready. True where a row was written."""
    if thread.ideas.ahead().count() >= AHEAD or _waits_for_its_head(thread):
        return False
    reopen_discards(thread)
    number = Idea.next_number(thread)
    session = _session_of(thread, number)
    if session is not None and not session.used:  # begun, whatever would be chosen now
        return _by_session(thread, number)
    researcher = RESEARCHERS[researcher_of(thread, number, known_models())]
    if isinstance(researcher, Proposer):
        return _at_once(thread, number, researcher)
    return researcher.holds_sessions and _by_session(thread, number)


def _at_once(thread: Thread, number: int, researcher: Proposer) -> bool:
    view = view_of(thread, number)
    try:
        draft = researcher.propose(view)
    except NothingToPropose as nothing:
        if thread.researcher == MIXED and known_models():
            return _by_session(thread, number)
        if not _under_way(thread.project):
            thread.finish(str(nothing))
        return False
    found = FoundTechnique.objects.any_of(thread.project.benchmark, (step.technique for step in draft.steps))
    trusted = researcher.ships_code and not found
    ground = ground_of(thread.project, thread.head, thread.project.touched(draft.files))
    idea = _save(
        thread, number, kind=draft.kind, title=draft.title, hypothesis=draft.hypothesis, tags=list(draft.tags),
        expected_effect=draft.expected_effect, cost_guess=draft.cost_guess, files=list(draft.files),
        steps=[step.to_json() for step in draft.steps], researcher=researcher.name, trusted=trusted,
        mode=str(KIND_MODES.get(draft.kind, "")),
        fingerprint=fingerprint_of(ground, draft.kind, draft.steps),
    )  # fmt: skip
    return idea is None or _unlike_others(thread, idea)  # None: somebody steered meanwhile


def _session_of(thread: Thread, number: int) -> Session | None:
    return latest(Session.Purpose.PROPOSE, f"{thread.public_id}-{number}")


def _by_session(thread: Thread, number: int) -> bool:
    """Open the session that thinks of idea `number`, or take what it came to."""
    session = _session_of(thread, number)
    if session is None or (session.used and session.state != Session.State.OPEN):
        return begin_session(thread, lambda: ask_for_idea(thread, number))
    if session.state == Session.State.OPEN:
        return False
    if session.state != Session.State.ENDED:
        return ended_without(session)
    answer = IdeaAnswer.from_json(session.answer or {})
    with transaction.atomic():
        public_id = new_id()
        idea = _save(
            thread, number, kind=Idea.Kind.CHANGE, public_id=public_id, title=answer.title, plan=answer.plan,
            hypothesis=answer.hypothesis, expected_effect=answer.expected_effect, tags=list(answer.tags),
            cost_guess=answer.cost_guess, steps=[Step(f"{CHANGE}{public_id}", {}).to_json()], mode=session.mode,
            model=answering_model(session), researcher=LLM,
            fingerprint=fingerprint_of_words(answer.hypothesis, answer.plan),
        )  # fmt: skip
        session.take(idea)
    return idea is None or _unlike_others(thread, idea)


def _unlike_others(thread: Thread, idea: Idea) -> bool:
    """Refuse a repetition; a researcher that only repeats itself is told to stop. Always True: rows were written."""
    if refusal := refusal_of(idea, frozenset(thread.directives.get("try", ()))):
        idea.refuse(*refusal)
        recent = thread.ideas.order_by("-number").values_list("state", flat=True)[:REFUSALS_IN_A_ROW]
        if list(recent) == [Idea.State.REFUSED] * REFUSALS_IN_A_ROW:
            thread.finish(f"the researcher repeated itself {REFUSALS_IN_A_ROW} times; give it another focus")
    return True


def fingerprint_of(ground: str, kind: str, steps: tuple[Step, ...]) -> str:
    content = json.dumps([ground, kind, [step.to_json() for step in steps]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def fingerprint_of_words(hypothesis: str, plan: str) -> str:
    """Of an idea that is words yet: the same sentence and plan are the same idea, on whatever head."""
    content = " ".join(f"change {hypothesis} {plan}".lower().split())
    return hashlib.sha256(content.encode()).hexdigest()


def _save(thread: Thread, number: int, **fields: Any) -> Idea | None:
    """Keep the idea, unless the thread was steered while it was made. The first one under new steering says so."""
    with transaction.atomic():
        fresh = Thread.objects.select_for_update().get(pk=thread.pk)
        if fresh.directives != thread.directives:
            return None
        idea = Idea.add(thread, number, **fields)
        fresh.obeyed(idea.name, idea.techniques)
        fresh.answered(idea)
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
