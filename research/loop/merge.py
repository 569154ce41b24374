"""What is due between a thread and `main`: open requests, approve by policy, mark stale, combine, rebase.

A confirmed verdict advances the thread's head at once; only `main` waits for a person (or for the project's policy).
When `main` moves elsewhere, a thread without gains of its own follows it; one with gains has them combined with the
new `main` (git's three-way merge, else its techniques applied again) and measured against it, the only gate. The same
holds where a person rolled `main` back: what stood on the merge that is gone is measured without it. Of many problems,
what `main` did not change where a gain was measured needs no measurement: see `carry`.
"""

from __future__ import annotations

import hashlib

from django.db import transaction
from django.db.models import Q

from benchmarks.catalogue import Step, is_change
from research.loop.carry import carry
from research.loop.commit import adopt_commit, message_of
from research.loop.memory import recipe_of, steps_of
from research.loop.together import apply_again, bring_together, follow, refuse
from research.models import Candidate, Idea, Lesson, MergeRequest, NotMergeable, Thread, Verdict
from research.models.merge_request import left_behind
from research.repository import MAIN, Conflict, Repository
from research.validation.rules import VerdictKind


def step(thread: Thread) -> bool:
    """One act, if one is due. True where rows changed."""
    thread.project.refresh_from_db()
    if open_request(thread) or end_combination(thread):
        return True
    states = set(thread.merge_requests.values_list("state", flat=True))
    if MergeRequest.State.OPEN in states and (approve_by_policy(thread) or mark_stale(thread)):
        return True
    if MergeRequest.State.STALE in states and reopen(thread):
        return True
    return catch_up(thread) or sync_refs(thread)


def open_request(thread: Thread) -> bool:
    """A confirmed gain without a request: move the head, open the request on top of the one it stacks on."""
    gains = Verdict.objects.filter(experiment__thread=thread, kind=str(VerdictKind.IMPROVED), merge_request=None)
    verdict = gains.order_by("pk").first()
    if verdict is None:
        return False
    experiment = verdict.experiment
    candidate = experiment.candidate
    assert candidate is not None
    old = thread.head if candidate.idea.kind == Idea.Kind.COMBINATION else experiment.baseline_commit
    with transaction.atomic():
        thread.advance_head(old, candidate.commit, verdict.reason)
        request = MergeRequest.open_for(verdict, thread)
        commits = [branch.commit for branch in candidate.parts]
        request.combines.set(MergeRequest.objects.open().filter(project=thread.project, commit__in=commits))
    return True


def end_combination(thread: Thread) -> bool:
    """A combination that brought no gain over `main`: the thread lets its own branch go and follows `main`."""
    champion = thread.project.champion
    if thread.head == champion:
        return False
    ended = Verdict.objects.filter(experiment__thread=thread).exclude(kind=str(VerdictKind.IMPROVED))
    verdict = ended.filter(experiment__candidate__idea__fingerprint=_fingerprint(champion, thread.head)).first()
    if verdict is None or _on_main(thread):
        return False
    note = f"gains of this thread did not add to main ({verdict.reason}); the head follows main"
    return thread.advance_head(thread.head, thread.project.champion, note)


def approve_by_policy(thread: Thread) -> bool:
    """Where the project says so, approve the newest request whose stack stands on `main`.

    A finding that asks for a person's look is never approved by policy, nor what stacks on it.
    """
    if not thread.project.auto_approve:
        return False
    for request in thread.merge_requests.open().order_by("-pk"):
        stack = request.stack()
        if stack[0].base == thread.project.champion and not any(part.needs_a_look for part in stack):
            try:
                request.approve(request.commit)
            except NotMergeable:
                continue
            return True
    return False


def mark_stale(thread: Thread) -> bool:
    """Open requests whose stack no longer stands on `main`."""
    changed = False
    for request in thread.merge_requests.open().order_by("pk"):
        request.refresh_from_db()
        if request.state == MergeRequest.State.OPEN and request.stack()[0].base != thread.project.champion:
            request.make_stale(left_behind(thread.project))
            changed = True
    return changed


def reopen(thread: Thread) -> bool:
    """Stale requests that were measured against just the commit where `main` stands again, after a rollback."""
    stale = thread.merge_requests.filter(state=MergeRequest.State.STALE, base=thread.project.champion)
    dead = thread.project.lessons.dead_ends()
    turned_down = {str(step["technique"]) for lesson in dead for step in lesson.techniques} if stale else set()
    free = [request for request in stale if not turned_down & set(request.candidate.idea.techniques)]
    return any([request.reopen() for request in free])


def catch_up(thread: Thread) -> bool:
    """Bring a thread that `main` has left behind onto it, once nothing of it is under way."""
    if _on_main(thread) or thread.experiments.running().exists() or thread.waiting_candidate:
        return False
    if below := _open_below(thread):
        return thread.advance_head(
            thread.head, below.commit, "the head was turned down; the gain below it still stands"
        )
    repository = Repository(thread.project.repository_path)
    champion = thread.project.champion
    if repository.is_ancestor(thread.head, champion):
        return follow(thread, "followed main: no gain of its own was open")
    if carry(thread):
        return True
    if not thread.project.is_running:
        return False
    return combine(thread, repository, champion)


def combine(thread: Thread, repository: Repository, champion: str) -> bool:
    """Make the thread's own gains, merged onto `main`, a candidate that is measured against `main`."""
    turned_down = _turned_down_below(thread, repository)
    steps = _own_steps(thread, champion, turned_down)
    by_git = not steps or any(is_change(step.technique) for step in steps)
    above = _above(thread, turned_down) if by_git else None
    if turned_down and not steps and above is None:
        return follow(thread, "what it stood on was turned down; nothing else of its own is open")
    if thread.merge_requests.filter(commit=thread.head, combined_in__state=MergeRequest.State.MERGED).exists():
        return follow(thread, "its gains are in main, by a combination")
    idea = _combination_idea(thread, champion, steps)
    if idea.state != Idea.State.PROPOSED:  # measured or refused before: `main` it is
        return follow(thread, idea.refusal or "its gains were measured on main already")
    if above is not None:  # no recipe to apply, or not by a catalogue: git moves what was changed since
        candidate = _rebased(idea, repository, above.commit, thread.head, champion, steps)
    elif turned_down:
        candidate = apply_again(idea, champion, steps, why="a change below it was turned down")
    else:
        candidate = bring_together(idea, champion, [thread.head], steps)
    if candidate is not None:
        thread.tell("main moved: this thread's gains are merged with it and measured against it")
    return True


def _rebased(
    idea: Idea, repository: Repository, base: str, head: str, champion: str, steps: tuple[Step, ...]
) -> Candidate | None:
    try:
        commit = repository.rebase(base, head, champion, message_of(idea), idea.created)
    except Conflict as conflict:
        refuse(idea, champion, f"{conflict}; what it stood on was turned down", conflict)
        return None
    below = {step.technique for step in recipe_of(idea.project, base)}
    moved = (step for step in steps if step.technique not in below)
    return adopt_commit(idea, champion, commit, (*recipe_of(idea.project, champion), *moved))


def _above(thread: Thread, turned_down: list[MergeRequest]) -> MergeRequest | None:
    """The newest change that was turned down, where the thread has a gain without a recipe on top of it."""
    newest = max(turned_down, key=lambda request: request.pk, default=None)
    own = thread.merge_requests.filter(commit=thread.head).exclude(pk__in=[request.pk for request in turned_down])
    return newest if newest is not None and own.exists() else None


def sync_refs(thread: Thread) -> bool:
    """Let git's branches say what the rows say. Never counts as a change."""
    repository = Repository(thread.project.repository_path)
    wanted = {MAIN: thread.project.champion, thread.branch: thread.head} | {
        f"refs/rolled-back/{request.public_id}": request.commit for request in thread.merge_requests.rolled_back()
    }
    there = repository.refs(*wanted)
    for ref, commit in wanted.items():
        if there.get(ref) != commit:
            repository.keep(ref, commit)
    return False


def _on_main(thread: Thread) -> bool:
    """The head stands on `main` and holds nothing that was rejected."""
    project = thread.project
    if thread.head == project.champion:
        return True
    if thread.merge_requests.filter(commit=thread.head).exclude(state=MergeRequest.State.OPEN).exists():
        return False  # stale, rejected, rolled back, or merged and since left behind
    repository = Repository(project.repository_path)
    gone = project.merge_requests.rolled_back().values_list("commit", flat=True)
    if any(repository.is_ancestor(commit, thread.head) for commit in gone):
        return False
    return repository.is_ancestor(project.champion, thread.head)


def _open_below(thread: Thread) -> MergeRequest | None:
    """The open request right below a head that was turned down, or the thread's own part of a combination that was."""
    heads = thread.merge_requests.turned_down().filter(commit=thread.head)
    mine = MergeRequest.objects.open().filter(Q(children__in=heads) | Q(combined_in__in=heads, thread=thread))
    return mine.order_by("-pk").first()


def _turned_down_below(thread: Thread, repository: Repository) -> list[MergeRequest]:
    """Requests that a person turned down or rolled back and that the head still stands on, not those tried again since.

    A rolled back merge of any thread: others had followed `main` to it.
    """
    gone = thread.project.merge_requests.rolled_back()
    found = (thread.merge_requests.turned_down() | gone).select_related("candidate__idea")
    return [request for request in found if repository.is_ancestor(request.commit, thread.head)]


def _own_steps(thread: Thread, champion: str, turned_down: list[MergeRequest]) -> tuple[Step, ...]:
    """Techniques of the head that `main` lacks, without those that were turned down."""
    there = {step.technique for step in recipe_of(thread.project, champion)}
    refused = {step.technique for request in turned_down for step in steps_of(request.candidate.idea.steps)}
    return tuple(
        step for step in recipe_of(thread.project, thread.head)
        if step.technique not in there and step.technique not in refused
    )  # fmt: skip


def _is_ours(steps: tuple[Step, ...]) -> bool:
    return bool(steps) and not any(is_change(step.technique) for step in steps)


def _fingerprint(champion: str, head: str) -> str:
    return hashlib.sha256(f"combine {champion} {head}".encode()).hexdigest()


def _combination_idea(thread: Thread, champion: str, steps: tuple[Step, ...]) -> Idea:
    fingerprint = _fingerprint(champion, thread.head)
    known = thread.ideas.filter(fingerprint=fingerprint).first()
    if known:
        return known
    gains = Lesson.objects.filter(thread=thread, kind=Lesson.Kind.GAIN, effect__isnull=False)
    names = ", ".join(step.technique for step in steps) or "nothing that main lacks"
    return Idea.add(
        thread, Idea.next_number(thread), kind=Idea.Kind.COMBINATION, fingerprint=fingerprint,
        title=f"{names} of thread {thread.number} on main"[:160],
        hypothesis=f"The gains of {thread} ({names}) add to those of main.",
        expected_effect=max((lesson.effect or 0 for lesson in gains), default=0.0) / 2,
        steps=[step.to_json() for step in steps],
        trusted=_is_ours(steps) or Candidate.all_trusted(thread.project, {thread.head}),  # else the head's own code
    )  # fmt: skip
