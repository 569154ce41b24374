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
from tests.browser.conftest import LOOKS
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
    theme: str, width: int,
) -> None:  # fmt: skip
    thread, experiment = project.threads.get(number=1), confirmed(world, project)
    form = reverse("propose-technique", args=[experiment.public_id])
    page = signed_in(User.objects.create_superuser("mira"), theme=theme, width=width)
    steered(thread, member)
    knob = {"name": "ALPHA", "low": 1.5, "high": 9.0}
    places = {"form": form, "empty": reverse("techniques"), "thread": reverse("thread", args=[thread.public_id])}
    for name, url in places.items():
        look(page, axe, url, f"{name}-{theme}-{width}")
    row = FoundTechnique.propose(member, experiment, catalogue_of(project), SAID, [knob])
    found.step(project)
    for name, url in {"technique": reverse("technique", args=[row.public_id]), "list": reverse("techniques")}.items():
        look(page, axe, url, f"{name}-{theme}-{width}")


def look(page: Page, axe: Callable[..., Any], url: str, name: str) -> None:
    page.goto(url)
    page.wait_for_load_state("networkidle")
    axe(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
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
