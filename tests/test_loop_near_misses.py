"""Near misses of two threads are measured together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from research.loop import combine
from research.models import Lesson, MergeRequest, Project, Thread
from research.validation.rules import Rule
from tests.cast import World, constants, focus, go, step
from tests.test_loop_combine import fresh

pytestmark = pytest.mark.django_db
State = MergeRequest.State


@pytest.fixture
def second(project: Project) -> Thread:
    return Thread.objects.create(project=project, number=2, researcher="catalogue", head=project.start_commit)


def near_misses(world: World, thread: Thread, second: Thread) -> None:
    """Both threads come to confirmation with a gain that no e-value can reach the bar for."""
    world.gains |= {"ALPHA": 0.003, "BETA": 0.003}
    rule = Rule.from_json(thread.project.rule)
    Project.objects.update(rule=replace(rule, alpha=1e-9, looks=(4, 6)).to_json())
    for each, name in ((thread, "alpha"), (second, "beta")):
        focus(each, name)
        verdict = world.until_verdict(fresh(each))
        assert verdict.near_miss and verdict.kind == "inconclusive"
        assert step(each) == "learn"
        focus(each, "nothing at all")
    Project.objects.update(rule=rule.to_json())


def test_near_misses_of_two_threads_on_a_common_base_are_combined(thread: Thread, second: Thread, world: World) -> None:
    near_misses(world, thread, second)
    assert step(thread) == "combine"
    verdict = world.until_verdict(fresh(thread))
    candidate = verdict.experiment.candidate
    assert candidate and [branch.label for branch in candidate.parts] == ["thread 1: alpha", "thread 2: beta"]
    values = constants(thread.project, candidate.commit)
    assert (values["ALPHA"], values["BETA"]) == (2.0, 2.0)
    assert candidate.parent == thread.project.start_commit and verdict.kind == "improved"
    go(thread)
    assert thread.head == candidate.commit == thread.merge_requests.get().commit


def test_a_near_miss_that_a_person_turned_down_or_forbade_is_not_combined(
    thread: Thread, second: Thread, world: World
) -> None:
    near_misses(world, thread, second)
    Thread.objects.filter(pk=thread.pk).update(directives={"focus": ["nothing at all"], "forbid": ["beta"]})
    assert not combine.step(fresh(thread))
    focus(thread, "nothing at all")
    Lesson.objects.create(
        project=thread.project, thread=second, kind=Lesson.Kind.REJECTED, text="no", base=second.head,
        techniques=[{"technique": "alpha", "tunables": {"value": 2.0}}],
    )  # fmt: skip
    assert not combine.step(fresh(thread))
