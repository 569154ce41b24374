"""The machines page: what runs where, how busy it was, what it withstands, and who may read which name."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from research.drawing.gantt import Bar, Lane, gantt
from research.models import Experiment, Lease, Machine, NoiseFloor, Project, Thread, Trial
from tests.cast import World, go


def page(client: Client, part: str = "") -> str:
    reply = client.get("/machines/", {"part": part} if part else {})
    assert reply.status_code == 200
    return str(reply.content.decode())


@pytest.fixture
def seen(client: Client, reviewer: User) -> Client:
    client.force_login(reviewer)
    return client


@pytest.fixture
def busy(world: World, thread: Thread) -> list[Lease]:
    """The machine was heard of a moment ago and executes the first pair of an experiment."""
    go(thread)
    world.machine.beat()
    leases = Trial.objects.claim_pair(world.machine, "worker")
    assert len(leases) == 2
    return leases


def test_without_a_machine_the_page_says_how_to_attach_one(seen: Client) -> None:
    text = page(seen)
    assert "No machine is attached" in text and "manage.py attach --name" in text


def test_a_machine_shows_what_each_slot_runs_and_what_waits(seen: Client, busy: list[Lease], world: World) -> None:
    experiment = busy[0].trial.experiment
    experiment.plan("confirm", 2)
    text = page(seen)
    assert "measuring" in text and "silent" not in text
    for arm in ("baseline", "candidate"):
        assert f"experiment {experiment.number} {arm}" in text
    assert "2 pairs wait" in text and f"/e/{experiment.public_id}/" in text
    assert "trial thread-0 baseline running" in text  # its bar in the drawing


def test_a_machine_that_fell_silent_says_so_and_what_to_do(seen: Client, busy: list[Lease], world: World) -> None:
    Machine.objects.update(seen=timezone.now() - timedelta(seconds=16))
    text = page(seen, "machines")
    assert "silent" in text and "manage.py attach --name quick" in text


def test_trials_of_a_project_one_may_not_see_have_no_name(
    client: Client, outsider: User, busy: list[Lease], project: Project
) -> None:
    client.force_login(outsider)
    text = page(client)
    assert "a trial of another project" in text and "another project: " not in text
    busy[0].trial.experiment.plan("confirm", 1)
    text = page(client)
    assert project.name not in text and "/e/" not in text
    assert "1 of them belongs to projects that you may not see" in text


def test_what_did_not_hold_comes_first_in_words_and_escaped(seen: Client, quick: Machine) -> None:
    rows = [
        {"name": "answered", "passed": True, "detail": "20 attacks tried"},
        {"name": "network", "passed": False, "detail": "<script>alert(1)</script>"},
    ]
    quick.attach(0, rows)
    text = page(seen)
    assert text.index("open a network connection") < text.index("the attack itself ran to its end")
    assert "did not hold" in text and "1 of 2 attacks held" in text and "Run only code that you trust" in text
    assert "&lt;script&gt;" in text and "<script>alert" not in text


def test_the_noise_floor_of_its_class_stands_by_a_machine(seen: Client, world: World) -> None:
    text = page(seen)
    assert "toy quick" in text and "0.0014" in text
    assert "0.0009" in text and "0.0030" in text, "what six pairs allow sigma to be"
    assert "scores moved while it was measured" not in text
    NoiseFloor.objects.update(drift=1.5, drift_error=0.6)
    assert "± 0.60" in page(seen) and "scores moved while it was measured" in page(seen)


def test_every_part_comes_alone_and_costs_few_queries(
    seen: Client, busy: list[Lease], django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    page(seen)
    for part, mark in (("machines", 'id="machines"'), ("queue", 'id="queue"')):
        with django_assert_max_num_queries(9):
            text = page(seen, part)
        assert mark in text and "<html" not in text


def leased(machine: Machine, trial: Trial, start: float, end: float | None) -> None:
    """Held from `start` to `end` seconds after the trial was made."""
    generation = trial.leases.count() + 1
    Lease.objects.create(
        trial=trial, machine=machine, worker="w", generation=generation, expires=timezone.now(),
        granted=trial.created + timedelta(seconds=start),
        released=None if end is None else trial.created + timedelta(seconds=end),
    )  # fmt: skip


def test_idle_gaps_count_only_while_something_waited(project: Project, quick: Machine) -> None:
    experiment = Experiment.objects.create(
        key="gaps", project=project, number=99, baseline_commit="0" * 40, candidate_commit="1" * 40, rule={}
    )
    experiment.plan("screen", 2)
    first, second, third, fourth = experiment.trials.order_by("pk")
    made = timezone.now()
    Trial.objects.update(created=made)
    for trial in (first, second, third, fourth):
        trial.refresh_from_db()
    leased(quick, first, 0, 5), leased(quick, second, 0, 8)  # side by side: the machine is busy until 8
    leased(quick, third, 10, 12)
    Trial.objects.filter(pk=fourth.pk).update(created=made + timedelta(seconds=20))  # nothing waited before that
    fourth.refresh_from_db()
    leased(quick, fourth, 1, None)  # 21 s after the beginning
    gaps = Lease.objects.idle_gaps()
    assert [round(gap.seconds, 3) for gap in gaps] == [2.0, 1.0]
    assert Lease.objects.since(made + timedelta(seconds=9)).count() == 2


def test_the_drawing_escapes_and_joins_what_is_too_close_to_see() -> None:
    bars = [Bar(600 - n, 600 - n - 0.9, "thread-0", "baseline", '"<b>', "/e/x/") for n in range(500)]
    svg = gantt([Lane("slot 0", bars, [(100.0, 90.0), (50.0, 49.9)])], 600.0, 'a "machine" <1>')
    assert "<b>" not in svg and "&quot;&lt;b&gt;" in svg and "a &quot;machine&quot; &lt;1&gt;" in svg
    assert svg.count('class="idle"') == 1  # the other is too narrow to be seen
    assert svg.count("<a ") < 20
    assert gantt([Lane("slot 0", bars[:10])], 600.0, "m").count("<a ") == 10
