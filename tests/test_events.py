"""Every transition leaves one event, in its own transaction, that a person can read."""

from __future__ import annotations

import time

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from research.loop.advance import advance_project_until_idle, advance_until_idle
from research.models import Event, Lesson, Machine, MergeRequest, NoiseFloor, Project, Thread, Trial
from tests.cast import World, begin, focus, go, repository_of, running, step
from tests.pace import here

pytestmark = pytest.mark.django_db
Kind = Event.Kind


def kinds(thread: Thread | None = None) -> list[str]:
    events = Event.objects.notable()
    return list((events.filter(thread=thread) if thread else events).values_list("kind", flat=True))


def text(kind: str) -> str:
    return Event.objects.filter(kind=kind).latest("seq").text


def test_a_search_tells_its_story_in_order(thread: Thread, world: World) -> None:
    begun = Event.objects.head()
    focus(thread, "alpha")
    world.until_verdict(thread)
    step(thread), step(thread)
    told = Event.objects.after(begun).notable().values_list("kind", "text")
    assert [kind for kind, _ in told if kind != Kind.IDEA] == [
        Kind.EXPERIMENT, Kind.VERDICT, Kind.LESSON, Kind.HEAD, Kind.REQUEST
    ]  # fmt: skip
    said = dict(told)
    thread.refresh_from_db()
    assert said[Kind.EXPERIMENT] == "experiment 1 began: another ALPHA"
    assert said[Kind.VERDICT].startswith("Experiment 1 improved by ")
    assert said[Kind.VERDICT].endswith(" %: another ALPHA")
    assert said[Kind.LESSON] == "lesson of experiment 1: gain, another ALPHA"
    assert said[Kind.HEAD].startswith(f"head moved to {thread.head[:7]}: a mean gain")
    assert said[Kind.REQUEST] == f"{thread.head[:7]} waits for a review: another ALPHA"


def test_numbers_have_no_holes(thread: Thread, world: World, reviewer: User) -> None:
    world.gain(thread, "alpha").approve(thread.head, reviewer)
    go(thread)
    numbers = list(Event.objects.values_list("seq", flat=True))
    assert numbers == list(range(1, len(numbers) + 1)) and Event.objects.head() == len(numbers)


def test_a_change_that_is_rolled_back_leaves_no_event(thread: Thread) -> None:
    before = Event.objects.head()
    with transaction.atomic():
        thread.pause()
        transaction.set_rollback(True)
    assert Event.objects.head() == before
    thread.pause()
    assert Event.objects.head() == before + 1


def test_what_changes_nothing_tells_nothing(thread: Thread) -> None:
    thread.pause()
    before = Event.objects.head()
    thread.pause(), thread.finish("over"), thread.wake("again"), thread.project.resume()
    assert not thread.advance_head("f" * 40, "e" * 40)
    assert Event.objects.head() == before


def test_every_trial_tells_its_start_and_its_end_quietly(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    go(thread)
    leases = Trial.objects.claim_pair(world.machine, "player")
    leases[0].trial.give_back(leases[0], "the worker stopped")
    assert text(Kind.TRIAL_ENDED) == "screen pair 1, baseline: waiting, the worker stopped"
    world.finish(leases[1])
    assert text(Kind.TRIAL_ENDED).startswith("screen pair 1, candidate: 0.9")
    started = Event.objects.filter(kind=Kind.TRIAL_STARTED)
    assert set(started.values_list("text", flat=True)) == {
        "screen pair 1, baseline: on quick", "screen pair 1, candidate: on quick"
    }  # fmt: skip
    assert {event.experiment for event in started} == {running(thread)}
    assert not world.finish(leases[0]), "the lease is gone"
    assert Event.objects.filter(kind=Kind.TRIAL_ENDED).count() == 2
    assert not set(kinds()) & {Kind.TRIAL_STARTED, Kind.TRIAL_ENDED}


def test_a_refused_idea_says_why(thread: Thread, world: World) -> None:
    focus(thread, "greedy")
    step(thread), step(thread)
    assert text(Kind.IDEA) == "idea 1: an own contract"
    assert text(Kind.REFUSED).startswith("idea 1 refused: ") and "benchmark.toml" in text(Kind.REFUSED)


def test_a_failed_step_tells_its_last_line(thread: Thread, world: World) -> None:
    repository = repository_of(thread.project)
    hidden = repository.path.rename(repository.path.with_name("hidden for events"))
    advance_until_idle(thread.pk)
    hidden.rename(repository.path)
    assert text(Kind.HALTED).startswith("a step failed: ") and "\n" not in text(Kind.HALTED)


def test_the_noise_floor_tells_its_begin_and_what_it_found(quick: Machine, project: Project) -> None:
    world = World(quick)
    advance_project_until_idle(project.pk)
    assert text(Kind.NOISE) == "measuring noise: 6 pairs of the start against itself"
    world.run()
    advance_project_until_idle(project.pk)
    floor = NoiseFloor.objects.get()
    assert text(Kind.NOISE).startswith(f"noise measured: two trials of the same code differ by {floor.sigma_pair:.2g}")
    assert Event.objects.filter(kind=Kind.NOISE).count() == 2


def test_decisions_name_who_took_them(thread: Thread, world: World, reviewer: User) -> None:
    top = world.gain(thread, "alpha", "beta")
    top.approve(top.commit, reviewer)
    merged = Event.objects.filter(kind=Kind.MERGED)
    assert [event.actor for event in merged] == [reviewer, reviewer]
    assert merged[1].text == f"{top.commit[:7]} merged by rosa: another BETA"
    world.gain(thread, "gamma").reject(reviewer, "unreadable")
    rejected = Event.objects.get(kind=Kind.REJECTED)
    assert rejected.actor == reviewer and "rejected by rosa: unreadable" in rejected.text


def test_a_project_and_its_threads_tell_who_began_them(toy: None, member: User) -> None:
    project = begin("mine", threads=2, started_by=member)
    told = list(project.events.values_list("text", "actor"))
    assert told == [
        ("the project began by mia", member.pk),
        ("thread 1 began by mia, with researcher catalogue", member.pk),
        ("thread 2 began by mia, with researcher catalogue", member.pk),
    ]


def test_states_of_a_project_are_told_with_their_reason(project: Project, member: User) -> None:
    project.pause("a person looks", member)
    assert text(Kind.STATE) == "the project is paused by mia: a person looks"
    project.resume(member)
    assert text(Kind.STATE) == "the project is active by mia"
    project.exhaust("the budget of 2 trials is spent")
    assert text(Kind.STATE) == "the project is exhausted: the budget of 2 trials is spent"


def test_an_attached_machine_tells_its_isolation(quick: Machine) -> None:
    quick.attach(3, [{"name": "network", "passed": True, "detail": ""}])
    assert quick.isolation_level == 3
    assert text(Kind.MACHINE) == "quick attached: isolation 3 of 3, 2 slots"
    assert Event.objects.get().topics == {"lab", "machines"}


def test_events_ring_for_the_pages_that_show_them(thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    told = Event.objects.get(kind=Kind.REQUEST)
    experiment = request.verdict.experiment
    assert told.topics == {
        "lab", "review", f"project:{thread.project.public_id}", f"thread:{thread.public_id}",
        f"experiment:{experiment.public_id}",
    }  # fmt: skip
    thread.tell("a note")
    assert Event.objects.get(kind=Kind.NOTE).topics == {
        "lab", f"project:{thread.project.public_id}", f"thread:{thread.public_id}"
    }  # fmt: skip


def test_a_stale_request_is_told_once(thread: Thread, world: World) -> None:
    world.gain(thread, "alpha", "beta")
    below = thread.merge_requests.earliest("pk")
    below.make_stale("main moved"), below.make_stale("main moved")
    assert MergeRequest.objects.filter(state=MergeRequest.State.STALE).count() == 2
    assert Event.objects.filter(kind=Kind.STALE).count() == 2


def test_a_conflict_is_told_as_a_lesson(project: Project, thread: Thread, world: World) -> None:
    second = Thread.objects.create(project=project, number=2, researcher="catalogue", head=project.start_commit)
    world.gains["EXTRA"] = 0.05
    request = world.gain(thread, "alpha")
    world.gain(second, "stubborn")
    request.approve(request.commit)
    go(second)
    assert Lesson.objects.filter(kind=Lesson.Kind.CONFLICT).exists()
    told = Event.objects.filter(kind=Kind.LESSON, text__startswith="lesson: these do not stand together")
    assert told.get().thread == second


def test_an_event_costs_next_to_nothing(thread: Thread) -> None:
    began = time.process_time()
    for _ in range(200):
        Event.record(Kind.NOTE, "a line", thread=thread)
    assert (time.process_time() - began) / 200 < here(0.002)
