"""Take over what was found with the public autoresearch program: its results.tsv and the branch beside it.

Their numbers are claims: they stand in the text of ideas and lessons, never as a result. What they kept last is
measured here like any other candidate. Of their commits only plain, small, editable files are read; nothing of theirs
is run, checked out or fetched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max

from benchmarks.catalogue import CHANGE
from research.loop.commit import adopt_commit, message_of
from research.loop.memory import recipe_of, steps_of
from research.models import AuditEntry, Event, Idea, Lesson, Membership, Project, Role, Thread
from research.repository import Blob, Foreign, Repository
from research.validation.integrity import check_paths

IMPORTED = "imported"  # the researcher of such a thread
STATUSES = ("keep", "discard", "crash")
MOST_ROWS, LONGEST_TABLE, LONGEST_WORDS = 2_000, 4 * 1024 * 1024, 1_000
LARGEST_FILE, MOST_COMMITS = 256 * 1024, 20_000
KINDS = {"keep": Lesson.Kind.NEAR_MISS, "discard": Lesson.Kind.NO_GAIN, "crash": Lesson.Kind.FAILURE}


class NotReadable(Exception):
    """What is not as the format says. One line."""


@dataclass(frozen=True)
class Row:
    """One experiment of theirs. `metric` and `memory` as they wrote them: nobody here has measured that."""

    line: int
    commit: str
    metric: str
    memory: str
    status: str
    description: str

    @property
    def claim(self) -> str:
        words = {"keep": "kept", "discard": "discarded", "crash": "crashed"}[self.status]
        claimed = "" if self.status == "crash" or not self.metric else f", claiming {self.metric}"
        return f"imported: {words} there{claimed}; not measured here"


@dataclass
class Plan:
    """What an import would do, or did."""

    rows: list[Row]
    commits: dict[str, str] = field(default_factory=dict)  # as the table has it -> whole
    left_out: dict[str, list[str]] = field(default_factory=dict)  # whole commit -> why paths are not taken
    tip: Row | None = None  # the last that was kept and is in the branch

    @property
    def missing(self) -> list[Row]:
        return [row for row in self.rows if row.commit not in self.commits]


def read_table(text: str) -> list[Row]:
    """Rows of a results.tsv: with or without a header, with tabs or runs of spaces. Raises NotReadable."""
    if len(text) > LONGEST_TABLE:
        raise NotReadable(f"the table is larger than {LONGEST_TABLE // 1024 // 1024} MiB")
    rows = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        if not line.strip() or line.lower().split()[0] == "commit":
            continue
        rows.append(_row(number, line))
    if not rows:
        raise NotReadable("there are no rows in it")
    if len(rows) > MOST_ROWS:
        raise NotReadable(f"{len(rows)} rows are too many; at most {MOST_ROWS}")
    return rows


def _row(number: int, line: str) -> Row:
    cells = [cell.strip() for cell in (line.split("\t") if "\t" in line else re.split(r"\s{2,}", line.strip()))]
    if len(cells) == 1:
        cells = line.split(maxsplit=4)
    at = next((at for at, cell in enumerate(cells) if cell.lower() in STATUSES), None)
    if at is None:
        raise NotReadable(f"line {number}: no status among {', '.join(STATUSES)}")
    before, words = cells[:at], " ".join(cells[at + 1 :])
    commit = before[0].lower() if before else ""
    if not re.fullmatch(r"[0-9a-f]{4,40}", commit):
        raise NotReadable(f"line {number}: {commit[:20]!r} is no commit")
    numbers = [cell if _is_number(cell) else "" for cell in before[1:3]] + ["", ""]
    return Row(number, commit, numbers[0], numbers[1], cells[at].lower(), _plain(words)[:LONGEST_WORDS])


def plan(rows: Sequence[Row], foreign: Foreign, branch: str, project: Project) -> Plan:
    """Which commits are there, and what of them can be taken. Reads no file yet."""
    known = foreign.commits(branch, MOST_COMMITS)
    made = Plan(list(rows))
    for row in rows:
        fitting = [commit for commit in known if commit.startswith(row.commit)]
        if len(fitting) == 1:
            made.commits[row.commit] = fitting[0]
    made.tip = next((row for row in reversed(rows) if row.status == "keep" and row.commit in made.commits), None)
    for commit in set(made.commits.values()):
        made.left_out[commit] = _taken(foreign, commit, project)[1]
    return made


def take_over(project: Project, by: User | None, made: Plan, foreign: Foreign, source: str) -> Thread:
    """The thread with an idea and a lesson for each row; what they kept last waits to be measured. Safe to repeat."""
    Membership.require(by, project, Role.MEMBER, "import into it")
    thread = _thread(project, by, source)
    for number, row in enumerate(made.rows, start=1):
        _idea(thread, number, row, made, source)
    if made.tip is not None:
        _offer(thread, made.tip, made, foreign)
    return thread


def _thread(project: Project, by: User | None, source: str) -> Thread:
    name = f"imported from {source}"
    with transaction.atomic():
        project = Project.objects.select_for_update().get(pk=project.pk)
        known = project.threads.filter(researcher=IMPORTED, directives__source=source).first()
        if known:
            return known
        number = (project.threads.aggregate(last=Max("number"))["last"] or 0) + 1
        thread = Thread.objects.create(
            project=project, number=number, researcher=IMPORTED, head=project.champion, steered_by=by,
            directives={"source": source}, note=name,
        )  # fmt: skip
        AuditEntry.record(by, "import autoresearch", project, thread=number, source=source) if by else (
            AuditEntry.of_nobody("console", "import autoresearch", project, thread=number, source=source)
        )
        Event.record(Event.Kind.STATE, f"thread {number} began: {name}", thread=thread, actor=by)
    return thread


def _idea(thread: Thread, number: int, row: Row, made: Plan, source: str) -> None:
    """Never to be implemented: a record of what was tried there."""
    said = f"imported {source} {row.line} {row.commit} {row.description}"
    fingerprint = hashlib.sha256(said.encode("utf-8", "backslashreplace")).hexdigest()
    if thread.ideas.filter(fingerprint=fingerprint).exists():
        return
    words = row.description or f"commit {row.commit}"
    with transaction.atomic():
        idea = _add(thread, row, words, fingerprint)
        where = made.commits.get(row.commit)
        idea.refuse(row.claim + ("" if where else "; its commit is not in the branch"))
        Lesson.objects.get_or_create(
            project=thread.project, origin=f"autoresearch {fingerprint[:40]}",
            defaults={
                "thread": thread, "kind": KINDS[row.status], "title": words[:160], "techniques": idea.steps,
                "text": f"{words} ({row.claim})", "about": words, "tags": [IMPORTED], "base": thread.head, "pairs": 0,
                "effect": None, "error": None, "confidence": 0.0, "imported_from": source[:120], "binding": False,
            },
        )  # fmt: skip


def _add(thread: Thread, row: Row, words: str, fingerprint: str, plan_: str = "") -> Idea:
    idea = Idea(thread=thread)
    steps = [{"technique": f"{CHANGE}{idea.public_id}", "tunables": {}}]
    return Idea.add(
        thread, Idea.next_number(thread), public_id=idea.public_id, kind=Idea.Kind.CHANGE, title=words[:160],
        hypothesis=words, plan=plan_, expected_effect=0.0, steps=steps, tags=[IMPORTED], fingerprint=fingerprint,
    )  # fmt: skip


def _offer(thread: Thread, tip: Row, made: Plan, foreign: Foreign) -> None:
    """The editable files of what they kept last, on `main`: measured here, under our rule."""
    commit = made.commits[tip.commit]
    fingerprint = hashlib.sha256(f"imported tip {commit}".encode()).hexdigest()
    idea = thread.ideas.filter(fingerprint=fingerprint).first()
    if idea is None:
        words = f"What was kept last there: {tip.description or tip.commit}"
        idea = _add(thread, tip, words, fingerprint, tip.claim)
    if idea.state != Idea.State.PROPOSED:
        return
    repository = Repository(thread.project.repository_path)
    taken, _ = _taken(foreign, commit, thread.project)
    if not taken:
        idea.refuse("nothing in that commit may be changed here")
        return
    files = repository.files(thread.head) | {path: foreign.read(blob) for path, blob in taken.items()}
    made_here = repository.commit_files(files, thread.head, message_of(idea), idea.created)
    repository.keep(f"refs/imported/{idea.public_id}", made_here)
    adopt_commit(idea, thread.head, made_here, (*recipe_of(thread.project, thread.head), *steps_of(idea.steps)))


def _taken(foreign: Foreign, commit: str, project: Project) -> tuple[Mapping[str, Blob], list[str]]:
    """Blobs of plain, small, editable files; and what is left out, with the reason."""
    taken, left = {}, []
    contract = project.contract
    for path, blob in foreign.files(commit).items():
        shown = _plain(path)[:120]
        if blob.kind == "commit":
            left.append(f"{shown}: a submodule")
        elif not blob.mode.startswith("100"):
            left.append(f"{shown}: a symbolic link")
        elif blob.size > LARGEST_FILE:
            left.append(f"{shown}: larger than {LARGEST_FILE // 1024} KiB")
        elif check_paths([path], contract.editable, contract.protected):
            left.append(f"{shown}: not editable here")
        else:
            taken[path] = blob
    return taken, left


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _plain(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def lines_of(made: Plan) -> Iterable[str]:
    """The plan, for a person."""
    for row in made.rows:
        where = made.commits.get(row.commit, "")[:10] or "not in the branch"
        told = f"{row.line:>5}  {row.commit[:10]:<10}  {row.status:<8} {row.metric or '-':>10}"
        yield f"{told}  {where:<18} {row.description[:80]}"
    if made.tip:
        commit = made.commits[made.tip.commit]
        yield f"to be measured here: {commit[:10]} {made.tip.description[:80]}"
        yield from (f"  left out: {why}" for why in made.left_out[commit][:20])
    else:
        yield "nothing that was kept is in the branch: nothing will be measured"
