"""What two threads found is merged by git on `main` and measured against it, its parts beside it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from research.loop import combine
from research.loop.advance import advance_project_until_idle
from research.loop.beside import interactions
from research.models import (
    AuditEntry,
    Experiment,
    Idea,
    Lesson,
    MergeRequest,
    NotAllowed,
    Project,
    Role,
    Thread,
    Trial,
    Verdict,
)
from tests.cast import World, constants, focus, go, person, repository_of, running, step
from tests.stage import Stage

pytestmark = pytest.mark.django_db
State = MergeRequest.State


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


@pytest.fixture
def second(project: Project) -> Thread:
    return Thread.objects.create(project=project, number=2, researcher="catalogue", head=project.start_commit)


def fresh(thread: Thread) -> Thread:
    return Thread.objects.select_related("project").get(pk=thread.pk)


def both_gain(world: World, thread: Thread, second: Thread, one: str = "alpha", other: str = "beta") -> None:
    """Each thread has an open gain that the other lacks; neither has an idea ahead."""
    for each, name in ((thread, one), (second, other)):
        world.gain(each, name)
        focus(each, "nothing at all")


def combined(thread: Thread) -> Idea | None:
    return thread.ideas.filter(kind=Idea.Kind.COMBINATION).order_by("-pk").first()


def test_open_gains_of_two_threads_become_one_candidate_measured_against_main(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    both_gain(world, thread, second)
    parts = [each.merge_requests.get() for each in (thread, second)]
    assert step(thread) == "combine"
    verdict = world.until_verdict(thread)
    candidate = verdict.experiment.candidate
    assert candidate and verdict.kind == "improved"
    assert verdict.experiment.baseline_commit == thread.project.start_commit, "main is the only gate"
    parents = repository_of(thread.project).git("show", "-s", "--format=%P", candidate.commit).split()
    assert parents == [request.commit for request in parts], "git merged them three ways"
    values = constants(thread.project, candidate.commit)
    assert (values["ALPHA"], values["BETA"]) == (2.0, 2.0)
    assert [step["technique"] for step in candidate.recipe] == ["alpha", "beta"]
    go(thread)
    request = thread.merge_requests.latest("pk")
    assert thread.head == request.commit == candidate.commit and set(request.combines.all()) == set(parts)
    assert {part.state for part in parts} == {State.OPEN}, "each may still be merged alone"


def test_the_parts_of_a_combination_are_measured_beside_it_and_say_whether_gains_add_up(
    thread: Thread, second: Thread, world: World
) -> None:
    both_gain(world, thread, second)
    verdict = world.until_verdict(thread)
    for _ in range(3):
        advance_project_until_idle(thread.project_id)
        world.run()
    alone = Experiment.objects.filter(purpose=Experiment.Purpose.PARENT).order_by("pk")
    assert [part.label for part in alone] == ["thread 1: alpha", "thread 2: beta"]
    assert [(len(part.scores()), part.state) for part in alone] == [(4, Experiment.State.ENDED)] * 2
    assert {part.baseline_commit for part in alone} == {verdict.experiment.baseline_commit}
    assert not Verdict.objects.filter(experiment__in=alone).exists(), "no part of a verdict"
    verdict.experiment.refresh_from_db()
    assert {part.confirm_split for part in alone} == {verdict.experiment.confirm_split} != {""}
    ((_, read),) = interactions(thread.project)
    assert abs(read.expected - 0.1) < 0.005 and abs(read.surplus) < 0.005
    assert read.low is not None and read.high is not None and read.low < 0 < read.high and read.sign == 0
    seeds = [set(part.trials.values_list("seed", flat=True)) for part in (*alone, verdict.experiment)]
    assert not seeds[0] & seeds[1] and not seeds[0] & seeds[2], "every arm has seeds of its own"


def test_merging_a_combination_takes_its_parts_along(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    both_gain(world, thread, second)
    parts = [each.merge_requests.get() for each in (thread, second)]
    world.until_verdict(thread)
    go(thread)
    request = thread.merge_requests.latest("pk")
    request.approve(request.commit, reviewer)
    for part in parts:
        part.refresh_from_db()
        assert (part.state, part.reason) == (State.STALE, "its gain came to main in a combination")
    go(second)
    second.refresh_from_db()
    assert second.head == request.commit == Project.objects.get().champion
    assert not running(second), "nothing is measured again"
    assert AuditEntry.objects.filter(action="merge").count() == 1


def test_a_gain_that_a_part_has_got_since_is_measured_on_the_combination(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    both_gain(world, thread, second)
    world.until_verdict(thread)
    go(thread)
    later = world.gain(second, "gamma")
    focus(second, "nothing at all")
    request = thread.merge_requests.latest("pk")
    request.approve(request.commit, reviewer)
    later.refresh_from_db()
    assert (later.state, later.reason) == (State.STALE, "main moved; the gain is measured again on it")
    verdict = world.until_verdict(second)
    candidate = verdict.experiment.candidate
    assert candidate and candidate.parent == request.commit and verdict.kind == "improved"
    assert candidate.idea.techniques == ["gamma"], "the rest is in main"


def test_who_steered_a_part_cannot_approve_the_combination(thread: Thread, second: Thread, world: World) -> None:
    both_gain(world, thread, second)
    judge = person("paula", Role.REVIEWER)
    Thread.objects.filter(pk=second.pk).update(steered_by=judge)
    world.until_verdict(thread)
    go(thread)
    request = thread.merge_requests.latest("pk")
    with pytest.raises(NotAllowed, match="you started or steered thread 2 last"):
        request.approve(request.commit, judge)


def test_turning_a_combination_down_leaves_its_parts_open(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    both_gain(world, thread, second)
    own = thread.merge_requests.get()
    world.until_verdict(thread)
    go(thread)
    thread.merge_requests.latest("pk").reject(reviewer, "merge them one by one")
    assert Lesson.objects.get(kind=Lesson.Kind.REJECTED).techniques == [], "neither change is a dead end"
    go(thread)
    own.refresh_from_db()
    assert own.state == State.OPEN and thread.head == own.commit
    assert thread.ideas.filter(kind=Idea.Kind.COMBINATION).count() == 1, "no pair of heads is tried twice"


def test_a_conflict_of_two_threads_is_remembered_with_its_lines_and_the_techniques_are_applied_again(
    thread: Thread, second: Thread, world: World
) -> None:
    both_gain(world, thread, second, "alpha", "gamma")
    verdict = world.until_verdict(thread)
    candidate = verdict.experiment.candidate
    assert candidate and verdict.kind == "improved"
    values = constants(thread.project, candidate.commit)
    assert (values["ALPHA"], values["GAMMA"]) == (2.0, 2.0)
    lesson = Lesson.objects.get(kind=Lesson.Kind.CONFLICT)
    assert "conflict in train.py" in lesson.text and lesson.techniques == []
    assert lesson.lines[0] == "train.py, line 3"
    assert {"< ALPHA = 2.0", "< GAMMA = 1.0", "> ALPHA = 1.0", "> GAMMA = 2.0"} <= set(lesson.lines)


def test_what_cannot_stand_together_is_refused_once_with_its_lines(
    thread: Thread, second: Thread, world: World
) -> None:
    world.gains["EXTRA"] = 0.05
    both_gain(world, thread, second, "alpha", "stubborn")
    assert step(thread) == "combine"
    idea, lesson = combined(thread), Lesson.objects.get(kind=Lesson.Kind.CONFLICT)
    assert idea and idea.state == Idea.State.REFUSED and "applying its techniques again failed too" in idea.refusal
    assert lesson.techniques == idea.steps and "train.py, line 3" in lesson.lines
    assert not running(thread) and step(thread) != "combine"


def test_combinations_take_no_more_than_their_share_of_the_trials(thread: Thread, second: Thread, world: World) -> None:
    both_gain(world, thread, second)
    assert combine._affordable(thread.project)
    measured = Trial.objects.count()
    world.until_verdict(thread)
    world.run()
    mine = Trial.objects.count() - measured
    assert mine > combine.SHARE * (mine + measured) and not combine._affordable(thread.project)


def test_the_thread_with_the_lower_number_combines_and_the_other_where_that_one_rests(
    thread: Thread, second: Thread, world: World
) -> None:
    both_gain(world, thread, second)
    assert not combine.step(fresh(second))
    thread.refresh_from_db()
    thread.pause()
    assert combine.step(fresh(second))
    idea = combined(second)
    assert idea and idea.state == Idea.State.IMPLEMENTED
    thread.resume()
    assert not combine.step(fresh(thread)), "the pair was taken"


def test_a_gain_with_a_finding_that_asks_for_a_person_is_not_combined(
    thread: Thread, second: Thread, world: World
) -> None:
    both_gain(world, thread, second)
    request = second.merge_requests.get()
    request.verdict.experiment.findings.create(kind="network", severity="review", message="train.py imports socket")
    assert not combine.step(fresh(thread))


def test_a_combination_is_finished_after_a_crash_between_its_idea_and_its_commit(
    thread: Thread, second: Thread, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_gain(world, thread, second)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as crash, pytest.raises(KeyboardInterrupt):
        crash.setattr(combine, "bring_together", die)
        combine.step(fresh(thread))
    idea = combined(thread)
    assert idea and idea.state == Idea.State.PROPOSED
    assert combine.step(fresh(thread))
    idea.refresh_from_db()
    assert idea.state == Idea.State.IMPLEMENTED and thread.ideas.filter(kind=Idea.Kind.COMBINATION).count() == 1
    assert not combine.step(fresh(thread)), "it waits to be measured"
