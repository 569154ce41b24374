"""A merge by keyboard alone, in a real browser; the decision never waits for a diff and holds for one commit."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.models import User
from playwright.sync_api import Page, Route, expect

from research.models import Experiment, Lesson, MergeRequest, Project, Thread
from tests.browser.conftest import CLOSER, Errors
from tests.cast import World

SignedIn = Callable[..., Page]


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def champion(thread: Thread) -> str:
    return Project.objects.get(pk=thread.project_id).champion


def open_page(page: Page, request: MergeRequest) -> None:
    page.goto(f"/review/{request.public_id}/")
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")  # scripts have run


def test_a_merge_is_approved_by_keyboard_alone(
    server: str, signed_in: SignedIn, thread: Thread, world: World, reviewer: User
) -> None:
    request = world.gain(thread, "alpha")
    page = signed_in(reviewer)
    page.goto("/machines/")
    press(page, "g", "r")
    page.wait_for_url("**/review/")
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")
    press(page, "j", "o")
    page.wait_for_url(f"**/review/{request.public_id}/")
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")
    press(page, "a")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Merge {request.commit[:8]} into main")
    press(page, "Enter")
    expect(page.locator("#messages")).to_contain_text(f"main moved to {request.commit[:7]}")
    expect(page.locator("#queue")).to_contain_text("Nothing waits for you")
    assert champion(thread) == request.commit


def test_the_decision_does_not_wait_for_the_diff(
    server: str, signed_in: SignedIn, thread: Thread, world: World, reviewer: User
) -> None:
    request = world.gain(thread, "alpha")
    page = signed_in(reviewer)
    held: list[Route] = []
    page.route("**/diff/**", lambda route: held.append(route))  # a diff that never arrives
    open_page(page, request)
    expect(page.locator("#files .code")).to_have_count(0)
    press(page, "a")
    press(page, "Enter")
    expect(page.locator("#messages")).to_contain_text("main moved")
    assert held and champion(thread) == request.commit


def test_an_approval_of_what_was_changed_meanwhile_is_refused(
    server: str, signed_in: SignedIn, thread: Thread, world: World, reviewer: User
) -> None:
    request = world.gain(thread, "alpha")
    before = champion(thread)
    page = signed_in(reviewer)
    open_page(page, request)
    MergeRequest.objects.filter(pk=request.pk).update(commit="f" * 40)
    press(page, "a", "Enter")
    expect(page.locator("#messages")).to_contain_text(f"the approval names {request.commit[:10]}")
    assert champion(thread) == before


def test_a_page_learns_that_its_request_was_decided_elsewhere(
    server: str, signed_in: SignedIn, thread: Thread, world: World, reviewer: User
) -> None:
    request = world.gain(thread, "alpha")
    page = signed_in(reviewer)
    open_page(page, request)
    press(page, "r")
    page.get_by_label("What should change").fill("half a sent")  # what is typed survives the update
    request.reject(reviewer, "decided in the other window")
    expect(page.locator("#bar")).to_contain_text("rejected")
    expect(page.get_by_label("What should change")).to_have_value("half a sent")


def test_a_rejection_asks_for_the_reason_and_keeps_it(
    server: str, signed_in: SignedIn, thread: Thread, world: World, reviewer: User
) -> None:
    request = world.gain(thread, "alpha")
    page = signed_in(reviewer)
    open_page(page, request)
    press(page, "x")
    field = page.get_by_label("Why")
    expect(field).to_be_focused()
    field.fill("unreadable")
    press(page, "Tab", "Enter")
    expect(page.locator("#messages")).to_contain_text("recorded as a dead end")
    assert "unreadable" in Lesson.objects.get(kind=Lesson.Kind.REJECTED).text


def test_keys_walk_the_queue_the_diff_and_ask_for_seeds(
    server: str, signed_in: SignedIn, thread: Thread, world: World, reviewer: User
) -> None:
    first, second = world.gain(thread, "alpha"), world.gain(thread, "beta")
    page = signed_in(reviewer)
    page.goto("/review/")
    links = page.locator("#queue [data-open]")
    order = [str(link.get_attribute("href")) for link in links.all()]
    assert len(order) == 2 and any(first.public_id in href for href in order)
    page.goto(order[0])
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")
    expect(page.locator("#files .code")).to_have_count(1)
    press(page, "n")
    expect(page.locator("#files .hunk").first).to_be_focused()
    press(page, "v")
    expect(page.locator("[data-viewed-count]")).to_have_text("1 of 1 viewed")
    page.reload()
    expect(page.locator("[data-viewed-count]")).to_have_text("1 of 1 viewed")
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")
    press(page, "]")
    page.wait_for_url(f"**{order[1]}")
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")
    press(page, "[")
    page.wait_for_url(f"**{order[0]}")
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")
    press(page, "s")
    expect(page.locator("#messages")).to_contain_text("More pairs are being measured")
    assert Experiment.objects.filter(purpose=Experiment.Purpose.REPLICATE).count() == 1
    assert second.pk


@CLOSER
def test_review_pages_are_accessible(
    server: str, signed_in: SignedIn, axe: Callable[..., None], thread: Thread, world: World, reviewer: User,
    theme: str, width: int,
) -> None:  # fmt: skip
    request = world.gain(thread, "alpha")
    page = signed_in(reviewer, theme=theme, width=width)
    page.goto("/review/")
    axe(page)
    open_page(page, request)
    expect(page.locator("#files .code")).to_have_count(1)
    axe(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_diff_is_one_link_away_without_scripts(
    server: str, signed_in: SignedIn, thread: Thread, world: World, reviewer: User, errors: Errors
) -> None:
    request = world.gain(thread, "alpha")
    page = signed_in(reviewer, java_script_enabled=False)
    page.goto(f"/review/{request.public_id}/")
    page.get_by_role("link", name="Show the change of this file").click()
    expect(page.locator("tr.added").first).to_contain_text("ALPHA")
    page.go_back()
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("#messages")).to_contain_text("main moved")
    assert champion(thread) == request.commit
