"""Parts of a page that fetch themselves again when something has happened, and stay still under the pointer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from research.models import Event, Project
from tests.browser.conftest import Daphne, Errors
from tests.browser.play import Player


@pytest.fixture
def rosa(db: None) -> User:
    return User.objects.create_superuser("rosa")


@pytest.fixture
def project(db: None) -> Project:
    return Player().project


@pytest.fixture
def page(signed_in: Callable[..., Page], rosa: User, project: Project) -> Page:
    page = signed_in(rosa)
    page.goto("/test/news/")
    expect(page.locator("#freshness")).to_have_text("live")
    page.wait_for_timeout(200)  # the topics were told
    return page


def note(project: Project, text: str) -> None:
    Event.record(Event.Kind.NOTE, text, project=project)


def asked(page: Page, part: str) -> list[str]:
    """The requests of one part from here on."""
    found: list[str] = []
    page.on("request", lambda request: found.append(request.url) if f"part={part}" in request.url else None)
    return found


def test_a_part_shows_what_has_happened(page: Page, project: Project) -> None:
    page.locator("#plain summary").click()
    page.evaluate("scrollTo(0, 100)")
    place = page.locator("#plain h2").bounding_box()
    note(project, "first <b>finding</b>")
    expect(page.locator("#plain li")).to_have_text("first <b>finding</b>")
    expect(page.locator("#plain details")).to_have_attribute("open", "")  # what was opened stays open
    assert page.locator("#plain h2").bounding_box() == place  # though the part above has grown


def test_many_events_are_one_request_a_second_and_the_last_is_there(page: Page, project: Project) -> None:
    found = asked(page, "plain")
    for number in range(20):
        note(project, f"event {number}")
        page.wait_for_timeout(50)
    expect(page.locator("#plain li")).to_have_count(20)
    page.wait_for_timeout(1_200)
    assert 2 <= len(found) <= 4


def test_nothing_moves_under_the_pointer(page: Page, project: Project) -> None:
    note(project, "before")
    expect(page.locator("#held li")).to_have_count(1)
    page.locator("#held h2").hover()
    note(project, "while the pointer is there")
    pill = page.locator("#held .news-pill")
    expect(pill).to_have_text("1 new")
    page.wait_for_timeout(1_200)
    expect(page.locator("#held li")).to_have_count(1)
    expect(page.locator("#plain li")).to_have_count(2)
    page.evaluate("document.querySelector('#held').style.marginTop = '300px'")  # the page shifts, not the person
    note(project, "while the pointer rests where it was")
    expect(pill).to_have_text("2 new")
    page.wait_for_timeout(300)
    expect(page.locator("#held li")).to_have_count(1)
    page.mouse.move(640, 790)
    expect(page.locator("#held li")).to_have_count(3)
    expect(pill).to_have_count(0)


def test_the_pill_shows_the_news_at_once(page: Page, project: Project) -> None:
    note(project, "before")
    page.locator("#held a").focus()
    note(project, "while it has focus")
    page.locator("#held .news-pill").click()
    expect(page.locator("#held li")).to_have_count(2)
    expect(page.locator("#held .news-pill")).to_have_count(0)
    expect(page.locator("#held")).to_be_focused()


def test_what_is_far_away_is_fetched_when_it_is_scrolled_to(page: Page, project: Project) -> None:
    found = asked(page, "far")
    note(project, "out of sight")
    expect(page.locator("#plain li")).to_have_count(1)
    page.wait_for_timeout(1_200)
    assert not found
    page.locator("#far").scroll_into_view_if_needed()
    expect(page.locator("#far li")).to_have_count(1)


def test_a_paused_page_stays_as_it_is(page: Page, project: Project) -> None:
    assert page.evaluate("lab.live.pause()") is True
    note(project, "meanwhile")
    page.wait_for_timeout(1_000)
    expect(page.locator("#plain li")).to_have_count(0)
    expect(page.locator("#freshness")).to_have_text("paused")
    assert page.evaluate("lab.live.pause()") is False
    expect(page.locator("#plain li")).to_have_count(1)


def test_a_failed_request_is_tried_again(page: Page, project: Project, errors: Errors) -> None:
    page.route("**/*part=plain*", lambda route: route.abort(), times=2)
    note(project, "in spite of it")
    expect(page.locator("#freshness")).to_have_text("retrying")
    expect(page.locator("#plain li")).to_have_count(1, timeout=10_000)
    expect(page.locator("#freshness")).to_have_text("live")
    errors.expect("ERR_FAILED|htmx:sendError|htmx:afterRequest")


def test_what_happened_while_the_server_was_away_is_caught_up(
    page: Page, project: Project, daphne: Daphne, errors: Errors
) -> None:
    daphne.stop()
    expect(page.locator("#freshness")).to_have_text("reconnecting")
    note(project, "nobody was listening")
    daphne.start()
    expect(page.locator("#plain li")).to_have_count(1, timeout=20_000)
    expect(page.locator("#freshness")).to_have_text("live")
    errors.expect("WebSocket connection to")


def test_a_page_without_websockets_polls(
    signed_in: Callable[..., Page], rosa: User, project: Project, errors: Errors
) -> None:
    page = signed_in(rosa)
    page.route_web_socket("**/ws/", lambda socket: socket.close(code=1011))
    page.goto("/test/news/")
    expect(page.locator("#freshness")).to_have_text("reconnecting")
    note(project, "by asking now and then")
    expect(page.locator("#plain li")).to_have_count(1, timeout=15_000)
    expect(page.locator("#freshness")).to_have_text("polling")
    errors.expect("WebSocket connection to")


def test_the_page_has_nothing_serious_for_axe(page: Page, axe: Any) -> None:
    axe(page)
