"""Idea -> Candidate on the thread's head; refused before any device time where it must be.

The code of an idea in words comes from a session, which begins as soon as the idea is there, while the thread is still
measuring; a second model may look at it. It is committed where the thread stands when its turn comes.
"""

from __future__ import annotations

from benchmarks.edits import DoesNotApply
from research.loop.asking import ask_for_change, ask_for_review, begin_session, ended_without, latest
from research.loop.commit import adopt_commit, commit_candidate, message_of
from research.loop.memory import recipe_of, steps_of, view_of
from research.loop.submit import take
from research.models import Idea, Session, Thread
from research.repository import Conflict, Repository
from research.researchers import RESEARCHERS
from research.researchers.base import Proposer
from research.researchers.llm.answers import ChangeAnswer, ReviewAnswer
from research.researchers.llm.quoting import quoted

CHANGES = 4  # sessions that may try to write one idea, those for a review and for a head that moved among them
BLAMELESS = ("unauthorized", "bad_request", "unavailable", "rate_limited", "broken", "no_model")  # not the idea's fault


def step(thread: Thread) -> bool:
    """Bring the oldest proposed idea nearer to a candidate. One experiment of a thread at a time."""
    idea = thread.ideas.ahead().order_by("number").first()
    if idea is None:
        return False
    busy = thread.experiments.running().exists() or thread.waiting_candidate is not None
    if hasattr(idea, "submission"):
        return not busy and _handed_in(idea)
    researcher = RESEARCHERS.get(idea.researcher)
    if isinstance(researcher, Proposer):
        return not busy and _at_once(thread, idea, researcher)
    return researcher is not None and researcher.holds_sessions and _by_session(thread, idea, busy)


def _handed_in(idea: Idea) -> bool:
    """Its code is there already. Always True: rows were written."""
    take(idea)
    return True


def _at_once(thread: Thread, idea: Idea, researcher: Proposer) -> bool:
    view = view_of(thread, idea.number)
    try:
        sources, recipe = researcher.implement(view, idea.kind, steps_of(idea.steps))
    except DoesNotApply as error:
        idea.refuse(f"it does not apply to the head: {error}")
        return True
    commit_candidate(idea, thread.head, sources, recipe)
    return True


def _by_session(thread: Thread, idea: Idea, busy: bool) -> bool:
    """Open the session that writes the code, or take what it came to."""
    session = latest(Session.Purpose.IMPLEMENT, idea.public_id)
    if session is None or (session.used and session.state != Session.State.OPEN):
        return begin_session(thread, lambda: ask_for_change(idea))
    if session.state == Session.State.OPEN:
        return False
    if session.state != Session.State.ENDED:
        return _nothing_came(idea, session)
    review = _review(idea, session)
    if review is not None and review.state == Session.State.OPEN:
        return False
    if review is not None and _is_sent_back(review):
        review.take()
        session.take()
        return _once_more(idea, _feedback(review))
    if review is not None and not review.used:
        review.take()
    return not busy and _commit(thread, idea, session)


def _nothing_came(idea: Idea, session: Session) -> bool:
    """Without code the idea is given up, unless it is the endpoint's fault; whatever else it means for the thread."""
    capped = session.state == Session.State.STOPPED
    goes_on = ended_without(session)
    if not capped and session.failure not in BLAMELESS:
        idea.refuse(f"no code came of it: {session.note}"[:500])
        return True
    return goes_on


def _review(idea: Idea, session: Session) -> Session | None:
    """What another model says of a change, once an idea; None where there is none to ask, or a look was had already."""
    found = latest(Session.Purpose.REVIEW, session.public_id)
    had = Session.objects.of_the_loop().filter(idea=idea, purpose=Session.Purpose.REVIEW).exists()
    if found is not None or had:
        return found
    repository = Repository(idea.project.repository_path)
    patch = repository.diff(session.base, _written(idea, session, repository)).patch
    return ask_for_review(idea, session, patch)


def _is_sent_back(review: Session) -> bool:
    """Advice counts once; a review that failed stops nothing."""
    ended = review.state == Session.State.ENDED and not review.used
    return ended and ReviewAnswer.from_json(review.answer or {}).advice == "revise"


def _feedback(review: Session) -> str:
    said = ReviewAnswer.from_json(review.answer or {})
    rows = (f"- {finding['severity']}, {finding['path'] or 'anywhere'}: {finding['text']}" for finding in said.findings)
    words = quoted("the review", "\n".join(rows), 6_000)
    return f"A first version of this change was sent back by a reviewer. Weigh what it found:\n{words}"


def _once_more(idea: Idea, why: str) -> bool:
    tries = Session.objects.of_the_loop().filter(idea=idea, purpose=Session.Purpose.IMPLEMENT).count()
    if tries >= CHANGES:
        idea.refuse(f"{tries} sessions tried to write it; the last: {why}"[:500])
        return True
    return begin_session(idea.thread, lambda: ask_for_change(idea, why))


def _written(idea: Idea, session: Session, repository: Repository) -> str:
    """The change as a commit on what its session read; no ref points to it. The same each time."""
    files = {path: text.encode() for path, text in ChangeAnswer.from_json(session.answer or {}).files.items()}
    return repository.commit_files(
        repository.files(session.base) | files, session.base, message_of(idea), idea.created
    )  # fmt: skip


def _commit(thread: Thread, idea: Idea, session: Session) -> bool:
    """Make it the idea's candidate, on the head. Where that has moved since, git carries the change over."""
    project, head = thread.project, thread.head
    repository = Repository(project.repository_path)
    commit = _written(idea, session, repository)
    if session.base != head:
        try:
            commit = repository.rebase(session.base, commit, head, message_of(idea), idea.created)
        except Conflict as conflict:
            session.take()
            lines = "\n".join(conflict.lines[:40])
            return _once_more(
                idea, f"The head moved while this change was written, and git cannot carry it over:\n{lines}"
            )
    adopt_commit(idea, head, commit, (*recipe_of(project, head), *steps_of(idea.steps)))
    session.take()
    return True
