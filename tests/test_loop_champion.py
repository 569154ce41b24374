"""After a merge: the champion against itself and, now and then, against the start, where promises are held to."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User

from research.loop import champion
from research.loop.advance import advance_project_until_idle
from research.loop.beside import calibrations
from research.management.summary import summary
from research.models import Ablation, Event, Experiment, MergeRequest, NoiseFloor, Project, Thread, Verdict
from tests.cast import SIGMA, World, begin, focus, go
from tests.stage import Stage
from tests.test_loop_again import assert_idempotent

pytestmark = pytest.mark.django_db
Purpose = Experiment.Purpose


def land(world: World, thread: Thread, reviewer: User, *names: str) -> None:
    """One merge a technique; nothing of the search is left under way."""
    for name in names:
        request = world.gain(thread, name)
        request.approve(request.commit, reviewer)
        focus(thread, "nothing at all")
        go(thread)
        Thread.objects.filter(pk=thread.pk).update(state=Thread.State.ACTIVE)


def measure(world: World, project: Project) -> None:
    for _ in range(3):
        advance_project_until_idle(project.pk)
        world.run()


def of(purpose: str) -> list[Experiment]:
    return list(Experiment.objects.filter(purpose=purpose).order_by("number"))


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


def test_a_new_champion_is_measured_against_itself_once(thread: Thread, world: World, reviewer: User) -> None:
    advance_project_until_idle(thread.project_id)
    assert not of(Purpose.BASELINE), "the start has its noise floor"
    land(world, thread, reviewer, "alpha")
    measure(world, thread.project)
    (baseline,) = of(Purpose.BASELINE)
    main = Project.objects.get().champion
    assert (baseline.baseline_commit, baseline.candidate_commit) == (main, main)
    assert (baseline.state, len(baseline.scores())) == (
        Experiment.State.ENDED,
        Project.objects.get().sizes.champion_pairs,
    )
    assert set(baseline.trials.values_list("split", flat=True)) == {"val_screen"}
    told = Event.objects.get(kind=Event.Kind.NOISE, experiment=baseline)
    assert "the new champion against itself over 3 pairs" in told.text and "the floor: 0.0014, now" in told.text
    floor, gaps = NoiseFloor.objects.get(), [one - other for one, other in baseline.scores()]
    pooled = (6 * (1.4 * SIGMA) ** 2 + sum(gap**2 for gap in gaps)) / 9
    assert floor.trials == 18 and abs(floor.sigma_pair**2 - pooled) < 1e-12, "once, by degrees of freedom"
    measure(world, thread.project)
    assert len(of(Purpose.BASELINE)) == 1 and NoiseFloor.objects.get().trials == 18


def test_pairs_of_a_champion_that_main_has_left_are_not_begun(thread: Thread, world: World, reviewer: User) -> None:
    top = world.gain(thread, "alpha", "beta")
    below = thread.merge_requests.earliest("pk")
    below.approve(below.commit, reviewer)
    advance_project_until_idle(thread.project_id)
    top.refresh_from_db()
    MergeRequest.objects.get(pk=top.pk).approve(top.commit, reviewer)
    advance_project_until_idle(thread.project_id)
    first, newest = of(Purpose.BASELINE)
    assert first.state == Experiment.State.CANCELLED and newest.baseline_commit == top.commit


def test_every_so_many_merges_the_champion_is_held_against_the_start_and_the_promise(
    thread: Thread, world: World, reviewer: User
) -> None:
    Project.objects.update(audit_every=2)
    land(world, thread, reviewer, "alpha")
    measure(world, thread.project)
    assert not of(Purpose.AUDIT), "one merge is too few"
    land(world, thread, reviewer, "beta")
    measure(world, thread.project)
    (audit,) = of(Purpose.AUDIT)
    project = Project.objects.get()
    assert (audit.baseline_commit, audit.candidate_commit) == (project.start_commit, project.champion)
    assert set(audit.trials.values_list("split", flat=True)) == {"val_confirm"}
    confirmed = Experiment.objects.get(candidate__commit=project.champion)
    seeds = [set(each.trials.values_list("seed", flat=True)) for each in (audit, confirmed)]
    assert not seeds[0] & seeds[1], "fresh seeds"
    (point,) = calibrations(project)
    shrunk = sum(Verdict.objects.filter(kind="improved").values_list("shrunk", flat=True))
    assert (point.merges, point.promised, point.realised.pairs) == (2, shrunk, champion.AUDIT_PAIRS)
    assert abs((point.realised.effect or 0) - 0.1) < 0.005
    assert "after 2 merges: promised" in Event.objects.get(kind=Event.Kind.PROMISE).text
    measure(world, project)
    assert len(of(Purpose.AUDIT)) == 1
    land(world, thread, reviewer, "gamma")
    measure(world, project)
    assert len(of(Purpose.AUDIT)) == 1, "the next one is due after four"


@pytest.mark.parametrize("share, sign, said", [
    (2.0, 1, "more than was promised"), (1.0, 0, "the promise holds"), (0.5, -1, "less than was promised"),
])  # fmt: skip
def test_what_came_out_is_held_against_the_promise(
    share: float, sign: int, said: str, thread: Thread, world: World, reviewer: User
) -> None:
    Project.objects.update(audit_every=1)
    land(world, thread, reviewer, "alpha")
    world.gains["ALPHA"] = share * (Verdict.objects.get(kind="improved").shrunk or 0)
    Experiment.objects.filter(purpose=Purpose.AUDIT).delete()
    measure(world, thread.project)
    (point,) = calibrations(thread.project)
    assert point.sign == sign
    assert Event.objects.get(kind=Event.Kind.PROMISE).text.endswith(f"over 6 pairs: {said}")


def test_merges_that_were_rolled_back_promise_nothing(thread: Thread, world: World, reviewer: User) -> None:
    Project.objects.update(audit_every=2)
    land(world, thread, reviewer, "alpha", "beta")
    thread.merge_requests.latest("pk").roll_back(reviewer, "wrong")
    measure(world, thread.project)
    assert not of(Purpose.AUDIT), "main stands on one merge"
    land(world, thread, reviewer, "gamma")
    measure(world, thread.project)
    (point,) = calibrations(thread.project)
    assert point.merges == 2 and abs((point.realised.effect or 0) - 0.1) < 0.005


def test_steps_after_a_merge_change_nothing_the_second_time(thread: Thread, world: World, reviewer: User) -> None:
    Project.objects.update(audit_every=1)
    land(world, thread, reviewer, "alpha")
    Experiment.objects.exclude(purpose=Purpose.COMPARE).delete()
    assert_idempotent(lambda: champion.step(Project.objects.get()))
    world.run()
    assert_idempotent(lambda: champion.step(Project.objects.get()))


def test_lost_pairs_are_made_up_for_within_reason(thread: Thread, world: World, reviewer: User) -> None:
    Project.objects.update(audit_every=1)
    land(world, thread, reviewer, "alpha")
    Experiment.objects.exclude(purpose=Purpose.COMPARE).delete()
    world.failure = lambda trial: "crash"
    for _ in range(8):
        measure(world, thread.project)
    (audit,) = of(Purpose.AUDIT)
    assert audit.state == Experiment.State.ENDED and not audit.scores()
    assert audit.trials.count() <= 2 * 2 * champion.AUDIT_PAIRS
    assert "could not be measured" in Event.objects.get(kind=Event.Kind.PROMISE).text


def test_a_project_says_after_how_many_merges_it_is_audited(toy: None, db: None) -> None:
    assert begin("usual").audit_every == 10
    assert begin("short", audit_every=3).audit_every == 3


def test_a_campaign_reports_what_was_combined_rolled_back_and_promised(
    thread: Thread, world: World, reviewer: User
) -> None:
    project = thread.project
    Project.objects.update(audit_every=1)
    second = Thread.objects.create(project=project, number=2, researcher="catalogue", head=project.start_commit)
    for each, name in ((thread, "alpha"), (second, "beta")):
        world.gain(each, name)
        focus(each, "nothing at all")
    world.until_verdict(thread)
    go(thread)
    request = thread.merge_requests.latest("pk")
    request.approve(request.commit, reviewer)
    measure(world, project)
    Ablation.ask(Project.objects.get(), pairs=2)
    measure(world, project)
    said = json.loads(json.dumps(summary(project)))
    assert said["combinations"] == {"tried": 1, "merged": 1} and said["rollbacks"] == 0
    (interaction,), (audit,) = said["interactions"], said["audits"]
    assert [part["label"] for part in interaction["parts"]] == ["thread 1: alpha", "thread 2: beta"]
    assert (audit["merges"], audit["realised"]["pairs"]) == (1, 6)
    assert {row["label"] for row in said["ablation"]} == {"alpha", "beta"}
    request.roll_back(reviewer, "wrong")
    left = summary(project)
    assert left["rollbacks"] == 1
    assert left["ablation_of"] == request.commit != project.champion  # told with the commit that it is of
