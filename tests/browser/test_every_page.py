"""Every page, both themes, desk and phone: axe finds nothing serious, nothing sticks out, no script fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from playwright.sync_api import Page

from research.models import Event, Lesson, Thread, Trial
from tests.browser.conftest import LOOKS, Looks, within_reach
from tests.browser.test_thread import write
from tests.cast import World, focus, go
from tests.session_play import ask, begin_session, whole_session


def addresses(thread: Thread, world: World) -> list[str]:
    """Every kind of page with something on it: a merge, an open request, a lesson, a trial that runs."""
    first = world.gain(thread, "alpha")
    first.approve(first.commit)
    request = world.gain(thread, "beta")
    focus(thread, "delta")
    go(thread)
    for lease in Trial.objects.claim_pair(world.machine, "player"):
        write(lease, 0, 40)
    ended, running = thread.experiments.order_by("number")[0], thread.experiments.order_by("-number")[0]
    assert Lesson.objects.exists() and Event.objects.exists()
    session, asking = whole_session(thread), begin_session(thread)
    ask(asking, partial="A reply that streams in")
    return [
        "/", f"/p/{thread.project.name}/", f"/p/{thread.project.name}/?by=time", "/projects/new/",
        f"/t/{thread.public_id}/", f"/e/{ended.public_id}/", f"/e/{running.public_id}/",
        f"/e/{ended.public_id}/evidence/", f"/e/{running.public_id}/evidence/", f"/p/{thread.project.name}/worth/",
        f"/compare/?e={ended.public_id},{running.public_id}", "/compare/", f"/p/{thread.project.name}/graph/",
        "/review/", f"/review/{request.public_id}/", f"/review/{first.public_id}/", "/lessons/", "/machines/",
        "/settings/", "/audit/", "/members/", f"/p/{thread.project.name}/audit/", f"/p/{thread.project.name}/members/",
        f"/s/{session.public_id}/", f"/s/{asking.public_id}/", f"/p/{thread.project.name}/prompts/",
    ]  # fmt: skip


@LOOKS
def test_nothing_is_out_of_reach_on_any_page(
    signed_in: Callable[..., Page], thread: Thread, world: World, axe: Callable[..., Any], looks: Looks
) -> None:
    mira = User.objects.create_superuser("mira")
    world.machine.override(mira, True)  # the red banner is on every page too
    page = signed_in(mira, reduced_motion="reduce")
    for address in addresses(thread, world):
        within_reach(page, axe, address, looks)


def test_an_empty_lab_and_pages_that_say_no_are_within_reach_too(
    signed_in: Callable[..., Page], axe: Callable[..., Any], errors: Any
) -> None:
    page = signed_in(User.objects.create_superuser("mira"))
    for address in ("/", "/review/", "/machines/", "/lessons/", "/compare/", "/projects/new/", "/nothing/", "/t/none/"):
        within_reach(page, axe, address, (("light", 360), ("dark", 360)))
    errors.expect("404")
