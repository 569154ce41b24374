"""The review page before there is anything to decide."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from research.models import Project, Thread, Trial
from tests.cast import World, focus, step
from tests.test_page_review import read, words


@pytest.fixture
def rosa(client: Client, reviewer: User) -> Client:
    client.force_login(reviewer)
    return client


def test_an_empty_queue_says_what_comes_next(rosa: Client, project: Project) -> None:
    text = words(read(rosa, reverse("review")))
    assert "Nothing waits for you" in text
    assert f"{project.name} : measuring noise, 0 of" in text


def test_an_experiment_in_confirmation_is_announced(rosa: Client, thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    while not Trial.objects.filter(stage="confirm").exists():
        world.run(1)
        step(thread)
    text = words(read(rosa, f"{reverse('review')}?part=next"))
    running = thread.experiments.get()
    assert running.candidate is not None
    assert "confirm: 0 of 4 pairs" in text and running.candidate.idea.name in text
