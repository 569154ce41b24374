"""Sessions in a real browser: a reply streams in, the transcript grows at its end, nothing is out of reach."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from research.models import Call, Thread
from tests.session_play import ask, begin_session, close, reply, whole_session

SignedIn = Callable[..., Page]


@pytest.fixture
def mira(db: None) -> User:
    return User.objects.create_superuser("mira")


def open_page(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")  # scripts have run


def test_a_reply_streams_in_and_stays_when_it_is_whole(
    server: str, signed_in: SignedIn, thread: Thread, mira: User
) -> None:
    whole_session(thread)
    session = begin_session(thread)
    call = ask(session, partial="I would")
    page = signed_in(mira)
    open_page(page, f"/s/{session.public_id}/")
    expect(page.locator("#end .stream")).to_have_text("I would")
    Call.objects.filter(pk=call.pk).update(partial="I would widen it")  # no event tells of this
    expect(page.locator("#end .stream")).to_have_text("I would widen it")
    call.delete()
    reply(session, "I would widen it.")
    expect(page.locator("#m-2")).to_contain_text("I would widen it.")
    expect(page.locator("#end")).to_contain_text("Reads the reply")
    page.evaluate("document.getElementById('m-2').dataset.kept = 'yes'")
    reply(session, "And then deepen it.")
    expect(page.locator("#m-3")).to_be_visible()
    assert page.locator("#m-2").get_attribute("data-kept") == "yes"  # what stood there was not drawn again
    close(session, "failed", failure="unavailable", note="no answer")
    expect(page.locator("#end")).to_contain_text("failed")
    expect(page.locator("[data-live-poll]")).to_have_count(0)
    page.keyboard.press("[")
    expect(page.locator("#outcome")).to_contain_text("Widen the model")


def test_the_thread_page_follows_the_model(server: str, signed_in: SignedIn, thread: Thread, mira: User) -> None:
    session = begin_session(thread, mode="explore")
    call = ask(session, partial="First")
    page = signed_in(mira)
    open_page(page, f"/t/{thread.public_id}/")
    expect(page.locator("#session .stream")).to_have_text("First")
    Call.objects.filter(pk=call.pk).update(partial="First I read")
    expect(page.locator("#session .stream")).to_have_text("First I read")


def test_a_long_text_unfolds_and_stays_unfolded(server: str, signed_in: SignedIn, thread: Thread, mira: User) -> None:
    session = whole_session(thread)
    page = signed_in(mira, width=360)
    open_page(page, f"/s/{session.public_id}/")
    page.locator("#m-3 summary").click()
    expect(page.locator("#m-3 .whole")).to_contain_text("line 150 of train.py")
