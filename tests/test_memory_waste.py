"""What a campaign measured for nothing is counted by the same rules with memory and without."""

from __future__ import annotations

import pytest

from research.management.summary import summary
from research.management.waste import waste
from research.models import Project, Thread
from tests.cast import World
from tests.test_memory_repeats import AGAIN, ALPHA, SIGN, Coder, crash, learned
from tests.test_memory_repeats import coder as coder

pytestmark = pytest.mark.django_db


def test_repetitions_are_counted_with_their_device_time(coder: Coder, world: World, thread: Thread) -> None:
    Project.objects.update(memory=False)
    crash(world, "BETA")
    coder.tell(ALPHA, "DELTA")
    learned(world, thread)
    for words in (SIGN, AGAIN):
        coder.tell(words, "BETA")
        learned(world, thread)
    found = waste(Project.objects.get(), gain=0.1, device_seconds=200.0)
    assert (found["proposed_and_measured"], found["duplicates"], found["wasted"]) == (3, 1, 1)
    assert found["wasted_device_seconds"] == 2.0 and found["gain_per_device_second"] == pytest.approx(0.0005)
    assert found["memory"] is False


def test_a_discard_tried_again_on_a_later_head_is_wasted_though_no_duplicate(
    coder: Coder, world: World, thread: Thread
) -> None:
    Project.objects.update(memory=False)
    crash(world, "BETA")
    for words, constant, tag in ((SIGN, "BETA", "optimizer"), (ALPHA, "ALPHA", "shape"), (AGAIN, "BETA", "optimizer")):
        coder.tell(words, constant, tag=tag)
        learned(world, thread)
    found = waste(Project.objects.get(), None, 0.0)
    assert (found["duplicates"], found["wasted"], found["gain_per_device_second"]) == (0, 1, None)


def test_with_memory_the_same_proposals_waste_nothing(coder: Coder, world: World, thread: Thread) -> None:
    crash(world, "BETA")
    coder.tell(SIGN, "BETA")
    learned(world, thread)
    coder.tell(AGAIN, "BETA")
    coder.tell(ALPHA, "DELTA")
    learned(world, thread)
    found = summary(Project.objects.get())
    assert (found["duplicates"], found["wasted"], found["refused_ideas"], found["memory"]) == (0, 0, 1, True)
