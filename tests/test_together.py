"""The script that measures many changes once each and hands in together what gained."""

from __future__ import annotations

import time

import pytest

from research.loop.advance import advance_until_idle
from research.models import Experiment, Project
from tests.cast import World, constants
from tests.gpu import together

pytestmark = pytest.mark.django_db

SECONDS = 5.0  # far more than it takes
SINGLES = [
    {"title": name, "hypothesis": f"{name} is worth something.", "expected": 0.01, "steps": steps}
    for name, steps in (
        ("alpha", [["alpha", {}]]),
        ("beta", [["train.py:BETA", {"value": 2.0}]]),
        ("delta", [["delta", {}]]),
    )
]


@pytest.fixture(autouse=True)
def sandboxed(world: World) -> None:
    """Its code is from outside: the machine has to hold it in."""
    world.machine.attach(3, [])


def test_what_gained_in_its_first_pair_is_brought_together_and_nothing_else(project: Project, world: World) -> None:
    together.hand(project, SINGLES)
    experiments = list(project.experiments.filter(purpose="compare").order_by("number"))
    assert [one.candidate and one.candidate.idea.title for one in experiments] == ["alpha", "beta", "delta"]
    assert len({one.thread_id for one in experiments}) == 3
    world.run()

    found = together.first_pairs(project, project.champion, time.time() + SECONDS)

    assert {one.number for one, _ in found} == {one.number for one in experiments}
    assert [gain > together.LEAST for _, gain in found] == [True, True, False]
    for experiment in experiments:
        experiment.refresh_from_db()
        assert experiment.state != Experiment.State.RUNNING, "measured once"

    idea = together.brought_together(project, project.champion, found)

    assert idea is not None and idea.hypothesis.endswith(("alpha, beta.", "beta, alpha."))
    changed = {name for name, value in constants(project, idea.submission.commit).items() if value != 1}
    assert changed == {"ALPHA", "BETA"}


def test_nothing_is_handed_in_where_nothing_gained(project: Project, world: World) -> None:
    together.hand(project, SINGLES[2:])
    world.run()
    found = together.first_pairs(project, project.champion, time.time() + SECONDS)
    assert [gain < 0 for _, gain in found] == [True]
    assert together.brought_together(project, project.champion, found) is None


def test_what_has_no_pair_in_time_is_stopped(project: Project, world: World) -> None:
    together.hand(project, SINGLES[:1])
    assert together.first_pairs(project, project.champion, time.time()) == []
    (experiment,) = project.experiments.filter(purpose="compare")
    assert experiment.state == Experiment.State.CANCELLED


def test_what_a_sitting_left_half_confirmed_is_waited_for(project: Project, world: World) -> None:
    together.hand(project, SINGLES[1:])
    (experiment,) = project.experiments.filter(candidate__idea__title="beta")

    def play(pairs: int) -> None:
        world.run(pairs)
        for thread in project.threads.all():
            advance_until_idle(thread.pk)

    play(2)  # of each the first pair
    assert together.under_way(project, project.champion) is None
    play(1)
    idea = together.under_way(project, project.champion)
    assert idea == together.idea_of(experiment) and not together.is_over(experiment)
    play(100)
    assert together.is_over(experiment) and together.under_way(project, project.champion) is None
