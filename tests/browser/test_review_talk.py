"""The merge page by keyboard alone: view, comment, resolve, override, approve. What is said arrives elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from research.models import AuditEntry, Comment, Finding, MergeRequest, Thread
from tests.browser.conftest import CLOSER
from tests.browser.test_review import SignedIn, champion, open_page, press
from tests.cast import World
from tests.test_comments import changed_line
from tests.test_patch_sets import measured_again


def find(request: MergeRequest) -> Finding:
    return Finding.objects.create(
        experiment=request.verdict.experiment, kind="network", severity="review", message="it imports socket",
        evidence=["train.py:3: import socket"],
    )  # fmt: skip


def test_view_comment_resolve_override_and_approve_by_keyboard_alone(
    server: str, signed_in: SignedIn, thread: Thread, world: World, reviewer: User
) -> None:
    request = world.gain(thread, "alpha")
    find(request)
    page = signed_in(reviewer)
    open_page(page, request)
    expect(page.locator("#files .code")).to_have_count(1)
    expect(page.get_by_role("button", name="Approve")).to_be_disabled()
    press(page, "n", "j")
    first = page.locator("tr.at").get_attribute("data-at")
    press(page, "j")
    assert page.locator("tr.at").get_attribute("data-at") != first
    press(page, "c")
    field = page.locator(".saying textarea")
    expect(field).to_be_focused()
    press(page, "Escape")
    expect(field).to_have_count(0)
    expect(page.locator("tr.at")).to_be_focused()
    press(page, "c")
    field.press_sequentially("why this?")
    press(page, "Control+Enter")
    expect(page.locator("#files .thread")).to_contain_text("why this?")
    expect(page.locator("#bar")).to_contain_text("1 unresolved")
    expect(page.locator("tr.at")).to_have_count(1)
    press(page, "z")
    expect(page.locator("#files .thread")).to_contain_text("resolved by rosa")
    expect(page.locator("#bar")).not_to_contain_text("unresolved")
    press(page, "v")
    expect(page.locator("[data-viewed-count]")).to_have_text("1 of 1 viewed")
    expect(page.locator("details.file")).not_to_have_attribute("open", "")
    press(page, "f")
    expect(page.get_by_label("What you looked at")).to_be_focused()
    page.keyboard.type("imported, never used")
    press(page, "Tab", "Enter")
    expect(page.locator("#messages")).to_contain_text("The finding is overridden")
    expect(page.locator("#findings")).to_contain_text("Overridden by rosa")
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")
    expect(page.locator("[data-viewed-count]")).to_have_text("1 of 1 viewed")
    press(page, "a", "Enter")
    expect(page.locator("#messages")).to_contain_text("main moved")
    assert champion(thread) == request.commit
    acts = list(AuditEntry.objects.exclude(project=None).order_by("pk").values_list("action", flat=True))
    assert acts == ["comment", "resolve a comment", "override a finding", "merge"]


def test_what_is_said_in_one_window_appears_in_another_and_spares_what_is_typed(
    server: str, signed_in: SignedIn, thread: Thread, world: World, reviewer: User, member: User
) -> None:
    request = world.gain(thread, "alpha")
    page = signed_in(reviewer)
    open_page(page, request)
    path, line = changed_line(request)
    page.locator(f'tr[data-at="new:{line}"] td.n').last.click()
    page.locator(".saying textarea").fill("half a sent")
    page.locator("#say-all").focus()
    Comment.make(request, member, "seen from elsewhere", path, "new", line)
    expect(page.locator("#bar")).to_contain_text("1 unresolved")
    expect(page.locator(".saying textarea")).to_have_value("half a sent")
    page.get_by_role("button", name="Cancel").click()
    page.locator("#diff-0 .news-pill").click()  # the cursor is in the diff: it does not change by itself
    expect(page.locator("#files .thread")).to_contain_text("seen from elsewhere")
    page.goto(f"/review/{request.public_id}/?split=1#c-{Comment.objects.get().public_id}")
    expect(page.locator("#files .thread")).to_be_focused()
    expect(page.locator("#files table.split")).to_have_count(1)


@CLOSER
def test_a_page_full_of_talk_is_accessible(
    server: str, signed_in: SignedIn, axe: Callable[..., None], thread: Thread, world: World, reviewer: User,
    member: User, theme: str, width: int,
) -> None:  # fmt: skip
    first = world.gain(thread, "alpha")
    path, line = changed_line(first)
    Comment.make(first, member, "too large", path, "new", line, "ALPHA = 2.0")
    Comment.make(first, member, "a neighbour", path, "new", line + 1).reply(reviewer, "indeed")
    first.request_changes(reviewer, "smaller")
    request = measured_again(world, thread)
    find(request)
    find_text = Finding.objects.create(
        experiment=request.verdict.experiment, kind="files", severity="review", message="it writes a file"
    )
    find_text.override(reviewer, "it is the checkpoint")
    page: Page = signed_in(reviewer, theme=theme, width=width, reduced_motion="reduce")
    for query in ("", "?split=1", "?from=1"):
        page.goto(f"/review/{request.public_id}/{query}")
        expect(page.locator("#files .code")).to_have_count(1)
        for summary in page.locator(".override > summary, .thread summary, .file-bar summary").all():
            summary.click()
        axe(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, query
