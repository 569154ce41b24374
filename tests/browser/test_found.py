"""Found techniques and steering by words, in both themes, on desk and phone; and by keyboard."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Page

from research.loop import found
from research.loop.memory import catalogue_of
from research.models import FoundTechnique, Project, Thread
from tests.browser.conftest import LOOKS, Looks, within_reach
from tests.cast import World, step
from tests.found_play import confirmed

SHOTS = os.environ.get("SHOTS", "")
SAID = {"name": "big_alpha", "title": "big ALPHA", "family": "train", "hypothesis": "A big ALPHA lowers the loss."}


def steered(thread: Thread, member: User) -> None:
    thread.resume()
    thread.say(member, "The loss spikes after the warm-up: look at the schedule before anything else.")
    step(thread)
    thread.refresh_from_db()
    thread.try_this(member, "beta")


@LOOKS
def test_found_techniques_and_directives_are_within_reach(
    signed_in: Callable[..., Page], project: Project, world: World, member: User, axe: Callable[..., Any],
    looks: Looks,
) -> None:  # fmt: skip
    thread, experiment = project.threads.get(number=1), confirmed(world, project)
    form = reverse("propose-technique", args=[experiment.public_id])
    page = signed_in(User.objects.create_superuser("mira"))
    steered(thread, member)
    knob = {"name": "ALPHA", "low": 1.5, "high": 9.0}
    places = {"form": form, "empty": reverse("techniques"), "thread": reverse("thread", args=[thread.public_id])}
    for name, url in places.items():
        look(page, axe, url, name, looks)
    row = FoundTechnique.propose(member, experiment, catalogue_of(project), SAID, [knob])
    found.step(project)
    for name, url in {"technique": reverse("technique", args=[row.public_id]), "list": reverse("techniques")}.items():
        look(page, axe, url, name, looks)


def look(page: Page, axe: Callable[..., Any], url: str, name: str, looks: Looks) -> None:
    within_reach(page, axe, url, looks)
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def test_a_word_is_said_by_keyboard(signed_in: Callable[..., Page], thread: Thread, world: World) -> None:
    page = signed_in(User.objects.create_superuser("mira"))
    page.goto(reverse("thread", args=[thread.public_id]))
    page.keyboard.press("w")
    page.keyboard.type("look at the schedule")
    page.get_by_role("button", name="Say it").click()
    page.locator("#words", has_text="look at the schedule").wait_for()
    page.get_by_role("button", name="Take back").click()
    page.locator("#words", has_text="look at the schedule").wait_for(state="detached")
