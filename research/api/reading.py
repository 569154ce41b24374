"""What a token may see: how rows are found, and projects, files and lessons. Nothing here changes a row."""

from __future__ import annotations

from typing import TypeVar

from django.db.models import Model, QuerySet

from research.api.schemas import (
    FileLine,
    Files,
    FileText,
    LessonLine,
    ProjectLine,
)
from research.loop.recall import recall
from research.models import ApiToken, Experiment, Lesson, Project, Thread
from research.repository import Repository
from research.validation import integrity

MOST = 100  # rows of one answer

LOOK = "list projects, threads or experiments to find it"

Row = TypeVar("Row", bound=Model)


class Missing(Exception):
    """There is nothing of that name, or this token does not open it; and what to do."""

    def __init__(self, why: str, do: str = LOOK) -> None:
        super().__init__(why)
        self.do = do


def one(rows: QuerySet[Row], what: str, do: str = LOOK) -> Row:
    found = rows.first()
    if found is None:
        raise Missing(f"there is no {what}, or this token does not open it", do)
    return found


def project_of(token: ApiToken, name: str) -> Project:
    return one(token.projects().filter(name=name), f"project {name[:80]!r}")


def thread_of(token: ApiToken, id: str) -> Thread:
    rows = Thread.objects.filter(public_id=id, project__in=token.projects())
    return one(rows.select_related("project"), f"thread {id[:20]!r}")


def experiment_of(token: ApiToken, id: str) -> Experiment:
    rows = Experiment.objects.filter(public_id=id, project__in=token.projects())
    related = ("project", "thread", "verdict", "candidate__idea", "candidate__diff")
    return one(rows.select_related(*related), f"experiment {id[:20]!r}")


def projects(token: ApiToken) -> list[ProjectLine]:
    return [ProjectLine(**project_line(project)) for project in token.projects().order_by("name")[:MOST]]


def project_line(found: Project) -> dict[str, str]:
    metric = found.contract.metric
    return {
        "name": found.name, "question": found.question, "benchmark": found.benchmark, "preset": found.preset,
        "state": found.state, "metric": metric.name, "unit": metric.unit,
        "better": "lower" if metric.lower_is_better else "higher", "champion": found.champion,
    }  # fmt: skip


def files(token: ApiToken, name: str, commit: str, folder: str = "") -> Files:
    """The files of a commit of the project; `head` of no thread, but `main` or `start` or a commit.

    `folder`: of this one alone, such as one problem of many.
    """
    found = project_of(token, name)
    known = commit_of(found, commit)
    contract = found.contract
    sizes = Repository(found.repository_path).files(known)
    closed = {
        path for path in sizes if integrity.check_paths([path], contract.editable, contract.protected)
    }  # fmt: skip
    below = f"{folder.rstrip('/')}/" if folder else ""
    wanted = [(path, text) for path, text in sorted(sizes.items()) if path.startswith(below)]
    lines = [FileLine(path=path, size=len(text), editable=path not in closed) for path, text in wanted]
    return Files(commit=known, files=lines)


def file(token: ApiToken, name: str, commit: str, path: str) -> FileText:
    found = project_of(token, name)
    known = commit_of(found, commit)
    content = Repository(found.repository_path).files(known).get(path)
    if content is None:
        raise Missing(f"there is no file {path[:80]!r} in {known[:10]}", "list the files of that commit")
    return FileText(commit=known, path=path, text=content.decode("utf-8", "replace"))


def commit_of(found: Project, named: str) -> str:
    """`main`, `start`, or a commit that the lab made in this project, by its first seven characters or more."""
    if named in ("main", "start"):
        return found.champion if named == "main" else found.start_commit
    known = {found.start_commit, found.champion, *found.threads.values_list("head", flat=True)}
    if len(named) >= 7:
        known |= set(found.candidates.filter(commit__startswith=named[:40]).values_list("commit", flat=True)[:2])
    fits = [commit for commit in known if len(named) >= 7 and commit.startswith(named)]
    if len(fits) != 1:
        do = "say `main`, `start`, or at least 7 characters of a commit such as a thread's `head`"
        raise Missing(f"there is no commit {named[:40]!r} of this project", do)
    return fits[0]


def lessons(token: ApiToken, name: str, query: str = "", limit: int = 30) -> list[LessonLine]:
    """What was learned: with a query what matters for it, dead ends first; else the newest."""
    found, most = project_of(token, name), max(1, min(limit, MOST))
    if query.strip():
        return [lesson_line(row, found) for row in recall(found, query, found.champion, most)[:most]]
    return [
        lesson_line(row, found) for row in found.lessons.current().select_related("experiment").order_by("-pk")[:most]
    ]


def lesson_line(row: Lesson, found: Project) -> LessonLine:
    """A lesson of another project of the benchmark comes without its experiment, which the token may not open."""
    own = row.experiment is not None and row.project_id == found.pk
    return LessonLine(
        kind=row.kind, text=row.text, effect=row.effect, pairs=row.pairs, dead_end=row.kind == Lesson.Kind.REJECTED,
        experiment=row.experiment.public_id if own and row.experiment else "", base=row.base,
    )  # fmt: skip
