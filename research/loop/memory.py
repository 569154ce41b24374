"""What a researcher is shown: the rows of a thread and its project, as plain records."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path

from django.db.models import Avg, Q

from benchmarks.catalogue import CHANGE, Catalogue, Sources, Step, is_change
from benchmarks.contract import load
from benchmarks.found import with_found
from research.loop.floors import machine_class_of, relative_sigma
from research.loop.problems import is_alike
from research.loop.room import room_of
from research.loop.screens import blind_stops
from research.models import (
    Candidate,
    Experiment,
    FoundTechnique,
    Idea,
    Lesson,
    MergeRequest,
    Project,
    Result,
    Thread,
)
from research.repository import Repository
from research.researchers.base import Attempt, Directives, LessonView, View
from research.validation.lessons import Standing, changed


def steps_of(rows: list[dict[str, object]]) -> tuple[Step, ...]:
    return tuple(Step(str(row["technique"]), row["tunables"]) for row in rows)  # type: ignore[arg-type]


def recipe_of(project: Project, commit: str) -> tuple[Step, ...]:
    """The techniques between the start and a commit of the lab's own making."""
    recipes = Candidate.objects.filter(project=project, commit=commit).order_by("pk").values_list("recipe", flat=True)
    return steps_of(recipes.first() or [])


def change_of(idea: Idea) -> Step:
    """The step that stands in recipes for code of a researcher's own."""
    return Step(f"{CHANGE}{idea.public_id}", {})


def changes(project: Project, names: Iterable[str]) -> dict[str, Idea]:
    """Of these steps, those that are code of a researcher's own, with the ideas that they came from."""
    wanted = {name.removeprefix(CHANGE): name for name in names if is_change(name)}
    found = Idea.objects.filter(thread__project=project, public_id__in=wanted) if wanted else ()
    return {wanted[idea.public_id]: idea for idea in found}


def labels_of(project: Project, names: Iterable[str]) -> list[frozenset[str]]:
    """What steering may call each of these steps."""
    names = list(names)
    own, known = changes(project, names), project.labels
    return [own[name].labels()[0] if name in own else known.get(name, frozenset({name})) for name in names]


def catalogue_of(project: Project) -> Catalogue:
    """What ships with the lab, and what was found in it and approved."""
    shipped = load(project.benchmark).catalogue(project.preset, project.data_path)
    rows = FoundTechnique.objects.in_catalogue(project).prefetch_related("experiment__candidate__idea")
    return with_found(shipped, [row.technique for row in rows])


@lru_cache(maxsize=32)
def sources_of(repository: Path, commit: str) -> dict[str, str]:
    files = Repository(repository).files(commit)
    return {path: content.decode("utf-8") for path, content in files.items() if path.endswith(".py")}


def view_of(thread: Thread, number: int) -> View:
    """The view for the thread's idea `number`; the same rows and number give the same view."""
    project = thread.project
    project.list_techniques()
    problems = {name: frozenset(project.touched(about["files"])) for name, about in project.described.items()}
    left, blind = room_of(project, thread.head), blind_stops(project)
    attempts = [_attempt(idea, thread) for idea in _attempts(project, blind)]
    return View(
        head=thread.head,
        sources=_copy(sources_of(project.repository_path, thread.head)),
        start_sources=_copy(sources_of(project.repository_path, project.start_commit)),
        recipe=recipe_of(project, thread.head),
        catalogue=catalogue_of(project),
        lessons=_lesson_views(project, blind),
        attempts=[attempt for attempt in attempts if _is_seen(attempt, project)],
        sigma=relative_sigma(project),
        seed=project.seed(number, f"thread-{thread.number}", 0),
        seconds_a_pair=_seconds_a_pair(project),
        directives=Directives(
            focus=frozenset(thread.directives.get("focus", ())),
            forbid=frozenset(thread.directives.get("forbid", ())),
            again=frozenset(thread.directives.get("try", ())),
        ),
        sent_back=[steps_of(request.candidate.idea.steps) for request in _sent_back(project)],
        labels=project.labels,
        problems=problems,
        room={name: max(left.get(each, 1.0) for each in mine) for name, mine in problems.items() if mine},
        elsewhere=_confirmed_elsewhere(thread),
        discards=[steps_of(lesson.techniques) for lesson in held_discards(project, thread.head)]
        if project.memory
        else [],
    )


def standing_of(project: Project, commit: str) -> Standing:
    """What a commit and its lab are like now, to hold against what a discard assumed."""
    names = tuple(step.technique for step in recipe_of(project, commit))
    return Standing(project.preset, names, relative_sigma(project), machine_class_of(project))


def tags_of(project: Project) -> dict[str, frozenset[str]]:
    """Technique -> what it is related to: its family, of a free-form change its tags; of many problems, the problem."""
    found = {
        name: frozenset(project.touched(about["files"]) if project.problems else {str(about["family"])})
        for name, about in project.described.items()
    }
    changes = Idea.objects.filter(thread__project=project, kind=Idea.Kind.CHANGE)
    for steps, tags, files in changes.values_list("steps", "tags", "files"):
        related = frozenset(project.touched(files) if project.problems else tags)
        found |= {str(step["technique"]): related for step in steps}
    return found


def held_discards(project: Project, head: str) -> list[Lesson]:
    """What was settled against a change and still holds at this head: see `validation.lessons.changed`."""
    rows = project.lessons.discards().exclude(experiment__in=blind_stops(project))
    found = [(row, assumed) for row in rows.order_by("pk") if (assumed := row.assumes)]
    if not found:  # mostly so: what the head is like now need not be looked up
        return []
    now, tags = standing_of(project, head), tags_of(project)
    return [row for row, assumed in found if not changed(assumed, now, tags)]


def _copy(sources: dict[str, str]) -> Sources:
    return dict(sources)


def _lessons(project: Project) -> list[Lesson]:
    """What counts, imported lessons aside: another lab's effects are no measurements of this one."""
    rows = project.lessons.current() if project.memory else project.lessons.dead_ends()
    rows = rows.filter(Q(imported_from="") | Q(kind=Lesson.Kind.REJECTED, binding=True))
    return list(rows.order_by("pk"))


def _is_seen(attempt: Attempt, project: Project) -> bool:
    """Without memory, only what is under way."""
    return project.memory or attempt.running


def _lesson_views(project: Project, blind: Collection[int]) -> list[LessonView]:
    of_retunes = Experiment.objects.filter(project=project, candidate__idea__kind=Idea.Kind.RETUNE)
    retunes = set(of_retunes.values_list("pk", flat=True))
    return [
        _lesson_view(project, lesson, lesson.experiment_id in retunes)
        for lesson in _lessons(project)
        if lesson.experiment_id not in blind
    ]


def _lesson_view(project: Project, lesson: Lesson, retune: bool) -> LessonView:
    return LessonView(
        kind=lesson.kind,
        steps=steps_of(lesson.techniques),
        base=lesson.base,
        recipe=tuple(lesson.recipe),
        effect=lesson.effect,
        error=lesson.error,
        pairs=lesson.pairs,
        text=lesson.text,
        retune=retune,
        replaced=_replaced(project, lesson) if retune else None,
    )


def _replaced(project: Project, lesson: Lesson) -> Step | None:
    """The setting that a retune was measured against: the base's own."""
    wanted = {step.technique for step in steps_of(lesson.techniques)}
    return next((step for step in recipe_of(project, lesson.base) if step.technique in wanted), None)


def _sent_back(project: Project) -> list[MergeRequest]:
    returned = project.merge_requests.filter(state=MergeRequest.State.RETURNED)
    return list(returned.order_by("pk").select_related("candidate__idea"))


def _attempts(project: Project, blind: Collection[int]) -> list[Idea]:
    ideas = Idea.objects.filter(thread__project=project).exclude(kind=Idea.Kind.COMBINATION)
    ideas = ideas.exclude(candidate__experiment__in=blind)
    found = list(ideas.select_related("thread", "candidate__experiment"))
    for idea in found:
        idea.thread.project = project  # its columns, once an idea, would be most of what is read
    return found


def _attempt(idea: Idea, thread: Thread) -> Attempt:
    candidate = getattr(idea, "candidate", None)
    experiment = getattr(candidate, "experiment", None) if candidate else None
    running = idea.state != Idea.State.REFUSED and (experiment is None or experiment.state == Experiment.State.RUNNING)
    base = base_of(idea, thread.head)
    return Attempt(steps_of(idea.steps), base, running, idea.thread_id != thread.pk, idea.kind)


def base_of(idea: Idea, head: str) -> str:
    """What an idea was tried on, or waits to be: `head`, too, where that differs only in problems it does not touch."""
    project, candidate = idea.project, getattr(idea, "candidate", None)
    base: str = candidate.parent if candidate else idea.thread.head
    touched = project.touched(idea.files)
    return head if touched and is_alike(project, base, head, touched) else base


def _confirmed_elsewhere(thread: Thread) -> dict[str, str]:
    """Techniques that another thread's head has and this one's has not: they come by merging, not by repeating."""
    mine = {step.technique for step in recipe_of(thread.project, thread.head)}
    found: dict[str, str] = {}
    for other in thread.project.threads.exclude(pk=thread.pk):
        for step in recipe_of(thread.project, other.head):
            if step.technique not in mine:
                found[step.technique] = str(other)
    return found


def _seconds_a_pair(project: Project) -> float:
    mean = Result.objects.filter(trial__project=project).aggregate(mean=Avg("device_seconds"))["mean"]
    return float(mean or project.sizes.budget_seconds * 1.5)
