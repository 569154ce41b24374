"""Every step can be run again after a crash at any point, and changes nothing the second time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.apps import apps
from django.core import serializers

from research.loop import commit, implement, judge, learn, measure, merge, noise, propose
from research.models import Candidate, Diff, Experiment, Finding, Idea, MergeRequest, NoiseFloor, Project, Thread, Trial
from research.models.trial import TrialQuerySet
from tests.cast import World, focus, go, repository_of, running, step

pytestmark = pytest.mark.django_db


def everything() -> str:
    """All rows of the lab, as text."""
    models = apps.get_app_config("research").get_models()
    return "".join(serializers.serialize("json", model.objects.order_by("pk")) for model in models)


def fresh(thread: Thread) -> Thread:
    return Thread.objects.select_related("project").get(pk=thread.pk)


def assert_idempotent(act: Callable[[], object]) -> None:
    """The first call changes rows, the second none."""
    before = everything()
    assert act()
    between = everything()
    assert between != before
    act()
    assert everything() == between


def test_every_step_changes_nothing_when_it_is_repeated(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    assert_idempotent(lambda: propose.step(fresh(thread)))
    assert_idempotent(lambda: implement.step(fresh(thread)))
    assert_idempotent(lambda: measure.step(fresh(thread)))
    for _ in range(2):  # confirm, verdict: a gain this clear is not extended
        world.run()
        assert_idempotent(lambda: judge.step(fresh(thread)))
    assert_idempotent(lambda: learn.step(fresh(thread)))
    assert_idempotent(lambda: merge.step(fresh(thread)))


def test_project_steps_change_nothing_when_they_are_repeated(thread: Thread, world: World) -> None:
    NoiseFloor.objects.all().delete()
    assert_idempotent(lambda: noise.step(Project.objects.get()))
    world.run()
    assert_idempotent(lambda: noise.step(Project.objects.get()))
    Project.objects.update(max_trials=1)

    def spend() -> bool:
        measure.enforce_budget(Project.objects.get())
        return not Project.objects.get().is_running

    assert_idempotent(spend)


def test_an_idle_thread_stays_as_it_is(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    go(thread)
    before = everything()
    assert go(thread) == 0
    assert everything() == before


def test_implementing_again_after_a_crash_makes_the_same_commit(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    step(thread), step(thread)
    first = Candidate.objects.get()
    first.delete()  # the rows were lost with the transaction; the commit stayed in git
    Idea.objects.update(state=Idea.State.PROPOSED)
    assert step(thread) == "implement"
    again = Candidate.objects.get()
    assert (again.commit, again.tree) == (first.commit, first.tree)
    assert Diff.objects.count() == 1


def test_a_ref_that_a_crash_lost_comes_back(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    step(thread), step(thread)
    candidate = Candidate.objects.get()
    repository = repository_of(thread.project)
    repository.git("update-ref", "-d", candidate.ref)
    assert step(thread) == "measure"
    assert repository.resolve(candidate.ref) == candidate.commit


def test_branches_say_what_the_rows_say(thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    request.approve(request.commit)
    repository = repository_of(thread.project)
    repository.git("update-ref", "-d", thread.branch)
    go(thread)
    assert repository.resolve(thread.branch) == repository.resolve("main") == request.commit


def test_a_crash_between_head_and_request_is_made_good(thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    head = request.commit
    request.delete()
    assert merge.step(fresh(thread))
    thread.refresh_from_db()
    assert thread.head == head == MergeRequest.objects.get().commit


def test_a_crash_while_an_experiment_is_opened_leaves_no_half_of_it(
    thread: Thread, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    focus(thread, "alpha")
    step(thread), step(thread)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as crash, pytest.raises(KeyboardInterrupt):
        crash.setattr(TrialQuerySet, "plan_pairs", die)
        step(thread)
    assert not Experiment.objects.exists() and not Finding.objects.exists()
    assert Project.objects.get().experiments_begun == 0
    assert step(thread) == "measure"
    assert Experiment.objects.get().number == 1


def test_lint_findings_are_there_before_anything_can_run(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    step(thread)
    view_idea = Idea.objects.get()
    root = repository_of(thread.project).files(thread.head)
    sources = {"train.py": root["train.py"].decode() + "\nimport subprocess\n"}
    candidate = commit.commit_candidate(view_idea, thread.head, sources, [])
    assert candidate and step(thread) == "measure"
    assert Finding.objects.get().kind == "process"
    before = everything()
    measure.open_experiment(candidate, candidate.parent)
    assert everything() == before


def test_a_combination_left_half_made_is_not_taken_for_an_idea_of_the_researcher(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    Idea.objects.create(
        thread=thread, number=1, kind=Idea.Kind.COMBINATION, researcher="catalogue", hypothesis="left over",
        expected_effect=0, steps=[], fingerprint="old",
    )  # fmt: skip
    assert [step(thread), step(thread), step(thread)] == ["propose", "implement", "measure"]
    assert Idea.objects.get(kind=Idea.Kind.COMBINATION).state == Idea.State.PROPOSED


def test_a_noise_floor_is_never_half_stored(thread: Thread, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    NoiseFloor.objects.all().delete()
    noise.step(Project.objects.get())
    world.run()

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as crash, pytest.raises(KeyboardInterrupt):
        crash.setattr(type(NoiseFloor.objects.all()), "update_or_create", die)
        noise.step(Project.objects.get())
    assert Experiment.objects.get().state == Experiment.State.RUNNING
    assert noise.step(Project.objects.get())
    assert NoiseFloor.objects.get().trials == 12


def test_a_project_without_a_repository_yet_is_left_alone(project: Project, world: World) -> None:
    NoiseFloor.objects.all().delete()
    Project.objects.update(start_commit="")
    assert not noise.step(Project.objects.get())
    assert not Trial.objects.exists()


def test_beginning_a_project_again_makes_nothing_new(project: Project, toy: None) -> None:
    from tests.cast import begin

    before = everything()
    assert begin(project.name) == project
    assert everything() == before


def test_a_verdict_is_stored_once_however_many_ask_for_it(thread: Thread, world: World) -> None:
    focus(thread, "delta")
    go(thread)
    world.run()
    experiment = running(thread)
    assert experiment
    stale = Experiment.objects.get(pk=experiment.pk)
    assert judge.judge(experiment) and not judge.judge(stale)
