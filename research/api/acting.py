"""What a token may do: begin a thread, claim and release one, hand in a change, follow it to its verdict."""

from __future__ import annotations

from django.urls import reverse

from research.api import books, measured, reading
from research.api.schemas import Change, SubmissionFacts, ThreadFacts
from research.loop.begin import add_thread
from research.loop.submit import EXTERNAL, Handed, Invalid, NotNow, submit
from research.models import ApiToken, Claim, Experiment, Idea, Membership, Project, Role, Submission, Thread
from research.repository import GitError, Repository
from research.tasks import advance_thread

MOST_THREADS = 8  # of one project that agents may begin
SOON, LATER = 5.0, 20.0  # seconds until it is worth asking again


class Forbidden(Exception):
    """The token, or its owner, may not do that."""


class Taken(Exception):
    """Another agent has the thread."""


def begin_thread(token: ApiToken, name: str) -> ThreadFacts:
    """One more line of inquiry, from where `main` stands, claimed by this token."""
    project = reading.project_of(token, name)
    _may_propose(token, project)
    if project.threads.filter(researcher=EXTERNAL).count() >= MOST_THREADS:
        raise Taken(f"{MOST_THREADS} threads of {project} are for agents already; claim one that is free")
    thread = add_thread(project, EXTERNAL, token.owner)
    Claim.take(thread, token)
    return books.thread(token, thread.public_id)


def claim(token: ApiToken, id: str) -> ThreadFacts:
    """Work on this thread alone until half an hour of silence."""
    _claimed(token, reading.thread_of(token, id))
    return books.thread(token, id)


def release(token: ApiToken, id: str) -> ThreadFacts:
    thread = reading.thread_of(token, id)
    Claim.release(thread, token)
    return books.thread(token, id)


def hand_in(token: ApiToken, id: str, change: Change) -> SubmissionFacts:
    """Hand in a change; its turn comes when what runs on the thread is over. Claims the thread, if it is free."""
    thread = reading.thread_of(token, id)
    _claimed(token, thread)
    handed = Handed(
        key=change.key, base=change.base, files=_files(thread, change), hypothesis=change.hypothesis.strip(),
        expected_effect=change.expected_effect, title=change.title.strip(), plan=change.plan, tags=tuple(change.tags),
    )  # fmt: skip
    idea = submit(thread, token, handed)
    advance_thread(thread.pk)
    return submission_facts(idea)


def submissions(token: ApiToken, limit: int = 30) -> list[SubmissionFacts]:
    """What this token handed in, newest first."""
    rows = Submission.objects.filter(token=token, idea__thread__project__in=token.projects())
    newest = rows.select_related("idea__thread").order_by("-pk")[: max(1, min(limit, reading.MOST))]
    return [submission_facts(row.idea, brief=True) for row in newest]


def submission(token: ApiToken, id: str) -> SubmissionFacts:
    """How far a change has come. Asking keeps the claim alive."""
    found = _submission_of(token, id)
    if Claim.objects.filter(thread=found.idea.thread, token=token).exists():
        Claim.take(found.idea.thread, token)
    return submission_facts(found.idea)


def withdraw(token: ApiToken, id: str) -> SubmissionFacts:
    """Take back a change that waits for its turn. Again: nothing more."""
    found = _submission_of(token, id)
    _may_propose(token, found.idea.thread.project)
    if not found.withdraw(token):
        found.idea.refresh_from_db()
        if not found.is_withdrawn:
            state = submission_facts(found.idea, brief=True).state
            raise NotNow(f"the change is {state}; only one that waits can be withdrawn", "read the submission")
    return submission_facts(found.idea)


def _submission_of(token: ApiToken, id: str) -> Submission:
    rows = Submission.objects.filter(token=token, idea__public_id=id, idea__thread__project__in=token.projects())
    rows = rows.select_related("idea__thread__project", "token")
    return reading.one(rows, f"submission {id[:20]!r} of yours", "list your submissions")


def submission_facts(idea: Idea, brief: bool = False) -> SubmissionFacts:
    idea.refresh_from_db()
    candidate = getattr(idea, "candidate", None)
    related = ("project", "thread", "verdict", "candidate__idea", "candidate__diff")
    row = Experiment.objects.filter(candidate=candidate).select_related(*related).first() if candidate else None
    state = _state(idea, row)
    verdict = getattr(row, "verdict", None)
    pointer = reverse("experiment", args=[idea.pointer.public_id]) if idea.pointer else ""
    facts = None if brief or row is None else measured.experiment_facts(row)
    note, rests = _progress(idea, row, state)
    return SubmissionFacts(
        id=idea.public_id, thread=idea.thread.public_id, key=idea.submission.key, state=state, note=note,
        title=idea.name, base=idea.submission.base, commit=candidate.commit if candidate else idea.submission.commit,
        refusal=idea.refusal, pointer=pointer, verdict=verdict.kind if verdict else "",
        effect=measured.effect_of(verdict), experiment_id=row.public_id if row else "", experiment=facts,
        again_in_seconds=0.0 if rests else {"running": SOON, "waiting": LATER}.get(state, 0.0),
    )  # fmt: skip


def _state(idea: Idea, row: Experiment | None) -> str:
    if idea.state == Idea.State.REFUSED:
        return "cancelled" if idea.submission.is_withdrawn else "refused"
    if row is None:
        return "waiting"
    return {Experiment.State.RUNNING: "running", Experiment.State.ENDED: "ended"}.get(
        Experiment.State(row.state), "cancelled"
    )


def _progress(idea: Idea, row: Experiment | None, state: str) -> tuple[str, bool]:
    """What the change waits for or how far it is; and whether nothing comes of it until a person acts."""
    thread = Thread.objects.select_related("project").get(pk=idea.thread_id)
    if state not in ("waiting", "running"):
        return "", False
    if why := _rest(thread, state):
        return why, True
    if row is not None:
        stage, pairs = measured.progress(row)
        return f"{stage}: {pairs} measured so far", False
    ahead = thread.ideas.ahead().filter(number__lt=idea.number).count()
    busy = thread.experiments.running().first()
    first = f"experiment {busy.number} of its thread is running" if busy else "its turn is about to come"
    return first + (f", and {ahead} of the thread's changes are before it" if ahead else ""), False


def _rest(thread: Thread, state: str) -> str:
    """Why nothing comes of what waits or runs on this thread; empty where it goes on."""
    project = thread.project
    goes_on = (Project.State.ACTIVE, *((Project.State.EXHAUSTED,) if state == "running" else ()))
    if project.state not in goes_on:
        why = f": {project.state_reason}" if project.state_reason else ""
        ask = "raises its budget" if project.state == Project.State.EXHAUSTED else "resumes it"
        return f"the project is {project.state}{why}; this rests until a member {ask}"
    if thread.state != Thread.State.ACTIVE:
        return f"the thread is {thread.state}; this rests until a member resumes it"
    return ""


def _claimed(token: ApiToken, thread: Thread) -> Claim:
    _may_propose(token, thread.project)
    if thread.researcher != EXTERNAL:
        raise Forbidden(f"{thread} has the researcher {thread.researcher}; only threads of `external` can be claimed")
    claim = Claim.take(thread, token)
    if claim is None:
        other = Claim.objects.filter(thread=thread).select_related("token").first()
        who = f"{other.token.name} until {other.until:%H:%M} UTC" if other else "another agent"
        raise Taken(f"{thread} is claimed by {who}; take another, or begin one")
    return claim


def _may_propose(token: ApiToken, project: Project) -> None:
    if not token.may_propose:
        raise Forbidden("this token may only read; make one that may propose")
    if Membership.role_of(token.owner, project) < Role.MEMBER:
        raise Forbidden(f"{token.owner} is no member of {project} any more; an admin can give that role")


def _files(thread: Thread, change: Change) -> dict[str, str | None]:
    """The files of a change; a diff is applied to its base first."""
    if (change.files is None) == (change.diff is None):
        raise Invalid("send either files or a diff", "files: path -> new text")
    if change.files is not None:
        return change.files
    base = reading.commit_of(thread.project, change.base)
    try:
        made = Repository(thread.project.repository_path).patched(base, (change.diff or "").encode("utf-8", "replace"))
    except GitError as error:
        raise Invalid(f"the diff does not apply to its base: {error}"[:300], "send whole files instead") from error
    try:
        return {path: None if text is None else text.decode() for path, text in made.items()}
    except UnicodeDecodeError as error:
        raise Invalid("the diff makes files that are not text", "send UTF-8 text") from error
