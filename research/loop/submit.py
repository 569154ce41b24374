"""What an agent hands in: checked at the door, kept as a commit on what it had read, taken when its turn comes.

At the door: is there room and budget, is the base known, are paths, sizes and syntax in order, was just this measured
already. All that the loop asks of any other candidate comes after it: the same commit step, the same gates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from django.db import transaction

from benchmarks.catalogue import CHANGE
from benchmarks.syntax import parse
from research.loop.commit import adopt_commit, message_of
from research.loop.memory import recipe_of, steps_of
from research.loop.problems import astray
from research.loop.repeats import refusal_of, refusal_of_code
from research.models import ApiToken, AuditEntry, Candidate, Experiment, Idea, Project, Submission, Thread
from research.repository import Change, Conflict, Repository
from research.validation import integrity

EXTERNAL = "external"  # the researcher of threads that agents outside work on
MOST_WAITING = 8  # changes of a thread that wait for their turn
MOST_FILES, LARGEST_FILE = 20, 256 * 1024
LARGEST_EFFECT = 10.0  # relative: nothing gains ten times the score


class NotAccepted(Exception):
    """A change that is not taken. One line, what to do about it, and the experiment that it repeats, if any."""

    def __init__(self, why: str, do: str, pointer: Experiment | None = None) -> None:
        super().__init__(why)
        self.do, self.pointer = do, pointer


class Invalid(NotAccepted):
    """The change itself is wrong: it will never be taken as it is."""


class NotNow(NotAccepted):
    """The change may be fine; the thread or the project does not take it now."""


@dataclass(frozen=True)
class Handed:
    """A change as an agent hands it in. `files`: path -> new text, or None for a file that goes."""

    key: str
    base: str
    files: Mapping[str, str | None]
    hypothesis: str
    expected_effect: float
    title: str = ""
    plan: str = ""
    tags: tuple[str, ...] = field(default=())


def submit(thread: Thread, token: ApiToken, handed: Handed) -> Idea:
    """Keep the change as an idea whose turn comes. The same `key` again: the idea that is there.

    Raises Invalid or NotNow.
    """
    if earlier := _handed_before(token, handed):
        return earlier
    _has_room(thread)
    check_change(thread.project, handed)
    repository = Repository(thread.project.repository_path)
    base = _base(thread, repository, handed.base)
    draft = _draft(thread, token, handed)
    commit = _commit(repository, draft, base, handed.files)
    change = repository.diff(base, commit)
    if not change.files:
        raise Invalid("the change is empty: the base already says so", "change something")
    draft.files = change.paths
    draft.fingerprint = _fingerprint(thread, draft, change)
    _is_new(draft, repository, commit, change)
    with transaction.atomic():
        Thread.objects.select_for_update().get(pk=thread.pk)
        if earlier := _handed_before(token, handed):  # the same request twice at once
            return earlier
        _has_room(thread)
        idea = _save(draft)
        submission = Submission.objects.create(idea=idea, token=token, key=handed.key, base=base, commit=commit)
        AuditEntry.record(token.owner, "submit", thread.project, thread=thread.number, token=token.name, commit=commit)
    repository.keep(submission.ref, commit)
    return idea


def _handed_before(token: ApiToken, handed: Handed) -> Idea | None:
    """The idea that this key stands for. Raises NotNow where it was another change."""
    earlier = Submission.objects.filter(token=token, key=handed.key).select_related("idea").first()
    if earlier is None:
        return None
    if (earlier.base, earlier.idea.hypothesis) != (handed.base, handed.hypothesis):
        raise NotNow(f"the key {handed.key!r} was used for another change", "choose a new key for each change")
    return earlier.idea


def take(idea: Idea) -> Candidate | None:
    """Make a submitted change a candidate on its thread's head. None: the idea says why it was refused."""
    submission, thread = idea.submission, idea.thread
    repository = Repository(idea.project.repository_path)
    repository.keep(submission.ref, submission.commit)  # a crash may have come between the row and the ref
    commit = submission.commit
    if submission.base != thread.head:
        if not repository.is_ancestor(submission.base, thread.head):
            moved = f"the head went to {thread.head[:10]}, which does not stand on the base {submission.base[:10]}"
            idea.refuse(f"{moved}; read it and submit again")
            return None
        try:
            commit = repository.rebase(submission.base, commit, thread.head, message_of(idea), idea.created)
        except Conflict as conflict:
            idea.refuse(f"the head has moved to {thread.head[:10]} since: {conflict}; read it and submit again")
            return None
    recipe = (*recipe_of(idea.project, thread.head), *steps_of(idea.steps))
    return adopt_commit(idea, thread.head, commit, recipe)


def check_change(project: Project, handed: Handed) -> None:
    """What can be said of a change without any repository. Raises Invalid."""
    if not handed.files:
        raise Invalid("there are no files in it", "send path -> new text for each file that changes")
    if len(handed.files) > MOST_FILES:
        raise Invalid(f"{len(handed.files)} files are too many", f"change at most {MOST_FILES}")
    if not abs(handed.expected_effect) <= LARGEST_EFFECT:
        raise Invalid("the expected effect is a relative gain, such as 0.02 for 2 %", "predict what you expect")
    contract = project.contract
    if broken := integrity.check_paths(list(handed.files), contract.editable, contract.protected):
        where = f"editable: {', '.join(contract.editable)}; protected: {', '.join(contract.protected)}"
        raise Invalid("; ".join(finding.message for finding in broken), where)
    if why := astray(project, handed.files):
        raise Invalid(why, f"change files of {', '.join(project.problems)}"[:300])
    for path, text in handed.files.items():
        _check_text(path, text)


def _check_text(path: str, text: str | None) -> None:
    if text is None:
        return
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST_FILE:
        raise Invalid(f"{path} is larger than {LARGEST_FILE // 1024} KiB", "keep code, not data, in the tree")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise Invalid(f"{path} is not text", "send UTF-8 text")
    if path.endswith(".py"):
        try:
            parse(text, path)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise Invalid(f"{path} is no valid Python: {words}"[:300], "correct it") from error


def _has_room(thread: Thread) -> None:
    thread.refresh_from_db()
    thread.project.refresh_from_db()
    if thread.researcher != EXTERNAL:
        raise NotNow(f"{thread} is not for agents outside", "begin a thread with researcher external")
    if thread.project.state != Project.State.ACTIVE:
        why = thread.project.state_reason
        words = f"the project is {thread.project.state}" + (f": {why}" if why else "")
        raise NotNow(words, "ask a member to resume it or to raise its budget")
    if thread.state != Thread.State.ACTIVE:
        raise NotNow(f"the thread is {thread.state}", "ask a member to resume it")
    if thread.ideas.filter(state=Idea.State.PROPOSED).count() >= MOST_WAITING:
        raise NotNow(f"{MOST_WAITING} changes wait for their turn already", "wait for a verdict, then submit")


def _base(thread: Thread, repository: Repository, named: str) -> str:
    """A commit that the change will still stand on when it is measured: of `main` or of the thread's head.

    On any other it would be carried to the head without what it was made on, and the verdict would be of another
    change than the agent's. Raises Invalid with what to do instead.
    """
    project = thread.project
    if named in (thread.head, project.champion):
        return named
    build = f"build on the head of the thread, {thread.head}"
    if waiting := Submission.objects.filter(idea__thread__project=project, commit=named).select_related("idea").first():
        candidate = Candidate.objects.filter(idea=waiting.idea, commit=named).first()
    else:
        candidate = Candidate.objects.filter(project=project, commit=named).select_related("idea").first()
    heads = project.threads.filter(head=named)
    if not (waiting or candidate or heads or named == project.start_commit):
        raise Invalid("the base is no commit of this project", f"read the thread, and {build}")
    if repository.is_ancestor(named, thread.head) or repository.is_ancestor(named, project.champion):
        return named
    why, do = _not_stood_on(thread, named, heads.first(), waiting, candidate)
    raise Invalid(f"neither main nor the head of {thread} stands on the base {named[:10]}: {why}", f"{do}{build}")


def _not_stood_on(
    thread: Thread, named: str, other: Thread | None, waiting: Submission | None, candidate: Candidate | None
) -> tuple[str, str]:
    """What such a base is, and what can be done beside building on the head."""
    if other is not None:
        return f"it is the head of {other}", f"hand it in to thread {other.number} ({other.public_id}), or "
    if candidate is None:
        gone = waiting is not None and waiting.idea.state == Idea.State.REFUSED
        both = "hand in both changes as one, or wait for its verdict and "
        return ("it was refused", "") if gone else ("it is a change that waits for its turn", both)
    experiment = Experiment.objects.filter(candidate=candidate).select_related("verdict").first()
    verdict = getattr(experiment, "verdict", None)
    if experiment is None or experiment.state == Experiment.State.RUNNING:
        return "it is a change without a verdict yet", "hand in both changes as one, or wait for its verdict and "
    ended = f"it is the change of experiment {experiment.number}, {verdict.kind if verdict else experiment.state}"
    return f"{ended}, and no longer on the thread", "hand in both changes as one, or "


def _commit(repository: Repository, idea: Idea, base: str, changed: Mapping[str, str | None]) -> str:
    files = repository.files(base)
    for path, text in changed.items():
        if text is None:
            files.pop(path, None)
        else:
            files[path] = text.encode()
    _no_file_is_a_folder(files)
    return repository.commit_files(files, base, message_of(idea), idea.created)


def _no_file_is_a_folder(files: Mapping[str, bytes]) -> None:
    for path in files:
        parts = path.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in files:
                raise Invalid(f"{'/'.join(parts[:end])} is a file, so nothing can lie below it", "choose other paths")


def _is_new(draft: Idea, repository: Repository, commit: str, change: Change) -> None:
    """No repetition of what was measured, is being measured, or waits for its turn."""
    thread, tree = draft.thread, repository.tree_of(commit)
    if refusal := refusal_of(draft) or refusal_of_code(draft, thread.head, tree, change):
        raise NotNow(refusal.why, "read what came of it, and try something else", refusal.pointer)
    waiting = Submission.objects.filter(idea__thread=thread, idea__state=Idea.State.PROPOSED)
    if any(repository.tree_of(other.commit) == tree for other in waiting):
        raise NotNow("exactly this code waits for its turn already", "wait for its verdict")


def _draft(thread: Thread, token: ApiToken, handed: Handed) -> Idea:
    """The idea before it is a row: its commit names it."""
    idea = Idea(
        thread=thread, kind=Idea.Kind.CHANGE, researcher=EXTERNAL, model=token.name, hypothesis=handed.hypothesis,
        title=(handed.title or handed.hypothesis)[:160], plan=handed.plan, tags=list(handed.tags),
        expected_effect=handed.expected_effect,
    )  # fmt: skip
    idea.steps = [{"technique": f"{CHANGE}{idea.public_id}", "tunables": {}}]
    return idea


def _fingerprint(thread: Thread, draft: Idea, change: Change) -> str:
    said = f"{thread.head}\n{draft.hypothesis}\n{change.patch}"
    return hashlib.sha256(said.encode("utf-8", "backslashreplace")).hexdigest()


KEPT = (
    "public_id", "created", "kind", "model", "hypothesis", "title", "plan", "tags", "expected_effect", "steps", "files",
    "fingerprint",
)  # fmt: skip


def _save(draft: Idea) -> Idea:
    thread = draft.thread
    idea = Idea.add(thread, Idea.next_number(thread), **{name: getattr(draft, name) for name in KEPT})
    thread.refresh_from_db()
    thread.obeyed(idea.name, idea.techniques)
    thread.answered(idea)
    return idea
