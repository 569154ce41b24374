"""The keyboard, the palette and the theme in a real browser; and that nothing serious is wrong for anybody's eyes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from research.models import Idea, Lesson, MergeRequest, Preferences, Project, Thread
from tests.browser.conftest import CLOSER
from tests.cast import World, go

SignedIn = Callable[..., Page]


@pytest.fixture
def search(gain: MergeRequest, world: World, thread: Thread) -> MergeRequest:
    """Two gains stacked, lessons of both, an idea under way."""
    request = world.gain(thread, "beta")
    go(thread)
    return request


@pytest.fixture
def gain(server: str, world: World, thread: Thread) -> MergeRequest:
    """One gain, with its lesson."""
    return world.gain(thread, "alpha")


def cursor(page: Page) -> str:
    return str(page.evaluate("document.querySelector('.cursor')?.id || ''"))


def test_g_and_a_letter_go_to_a_page(gain: MergeRequest, signed_in: SignedIn, reviewer: User) -> None:
    page = signed_in(reviewer)
    page.goto("/settings/")
    for letter, path in (("l", "/lessons/"), ("m", "/machines/"), ("r", "/review/"), ("p", "/p/question/")):
        page.keyboard.press("g")
        page.keyboard.press(letter)
        page.wait_for_url(f"**{path}")


def test_j_and_k_walk_rows_and_enter_opens_one(search: MergeRequest, signed_in: SignedIn, reviewer: User) -> None:
    page = signed_in(reviewer)
    page.goto("/lessons/")
    newer, older = (f"lesson-{pk}" for pk in Lesson.objects.order_by("-pk").values_list("pk", flat=True))
    page.keyboard.press("j")
    assert cursor(page) == newer
    page.keyboard.press("j"), page.keyboard.press("j")
    assert cursor(page) == older  # the last one
    page.keyboard.press("k")
    assert cursor(page) == newer
    # A live refetch replaces the rows' content; the cursor stays where it is.
    page.evaluate("htmx.trigger('#lessons', 'live')")
    page.wait_for_load_state("networkidle")
    assert cursor(page) == newer
    page.keyboard.press("x"), page.keyboard.press("j"), page.keyboard.press("x")
    expect(page.locator("#messages")).to_contain_text("2 selected")
    first, second = Lesson.objects.order_by("-pk").values_list("experiment__public_id", flat=True)
    page.keyboard.press("c")
    page.wait_for_url(f"**/compare/?e={first},{second}")
    page.go_back()
    page.keyboard.press("j"), page.keyboard.press("Enter")
    page.wait_for_url(f"**/e/{first}/")


def test_keys_never_fire_while_somebody_types(gain: MergeRequest, signed_in: SignedIn, reviewer: User) -> None:
    page = signed_in(reviewer)
    page.goto("/lessons/")
    page.keyboard.press("/")
    expect(page.locator("[data-filter]")).to_be_focused()
    page.keyboard.type("gt j?")
    assert page.locator("[data-filter]").input_value() == "gt j?"
    assert page.evaluate("document.documentElement.dataset.theme") == "system" and cursor(page) == ""
    assert not page.locator("dialog").count()
    page.keyboard.press("Escape"), page.keyboard.press("j")
    assert cursor(page)


def test_the_sheet_lists_the_keys_of_this_page(gain: MergeRequest, signed_in: SignedIn, reviewer: User) -> None:
    page = signed_in(reviewer)
    page.goto(f"/p/question/graph/?node={gain.candidate.idea.public_id}")
    page.keyboard.press("?")
    sheet = page.locator("dialog.sheet")
    for words in ("Open the experiment", "Colour by gain", "g m", "copy the address"):
        expect(sheet).to_contain_text(words.replace("g m", "gm"))
    page.keyboard.press("t")  # keys rest while a dialog is open
    assert page.evaluate("document.documentElement.dataset.theme") == "system"
    page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)


def test_the_theme_changes_at_once_and_is_there_next_time(
    project: Project, signed_in: SignedIn, reviewer: User
) -> None:
    page = signed_in(reviewer)
    page.goto("/lessons/")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    is_dark = re.compile("theme=dark")
    with page.expect_response(lambda reply: is_dark.search(reply.request.post_data or "") and reply.status == 204):
        page.keyboard.press("t")
        page.keyboard.press("t")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert Preferences.of(reviewer).theme == "dark"


def test_the_palette_finds_and_opens_by_keys_alone(gain: MergeRequest, signed_in: SignedIn, reviewer: User) -> None:
    experiment = gain.verdict.experiment
    page = signed_in(reviewer)
    page.goto("/machines/")
    page.keyboard.press("Control+k")
    box = page.get_by_role("combobox", name="Search and commands")
    expect(box).to_be_focused()
    expect(page.locator("dialog.palette")).to_contain_text("Switch theme")
    page.keyboard.type(f"#{experiment.number}")
    expect(page.get_by_role("option").first).to_contain_text(f"{experiment.number}: ")
    chosen = page.get_by_role("option", selected=True)
    expect(chosen).to_have_count(1)
    assert box.get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/e/{experiment.public_id}/")


def test_keys_that_are_switched_off_stay_off_but_not_the_palette(
    gain: MergeRequest, signed_in: SignedIn, reviewer: User
) -> None:
    Preferences.of(reviewer)
    Preferences.objects.update(shortcuts=False)
    page = signed_in(reviewer)
    page.goto("/lessons/")
    page.keyboard.press("j"), page.keyboard.press("t"), page.keyboard.press("?")
    assert cursor(page) == "" and page.evaluate("document.documentElement.dataset.theme") == "system"
    page.keyboard.press("Control+k")
    expect(page.locator("dialog.palette")).to_be_visible()


def test_a_consequence_is_confirmed_first(gain: MergeRequest, signed_in: SignedIn, reviewer: User) -> None:
    page = signed_in(reviewer)
    page.goto("/lessons/")
    newest = Lesson.objects.latest("pk")
    page.locator(f"#lesson-{newest.pk} button").click()
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text("Retract this lesson?")
    page.keyboard.press("Escape")
    newest.refresh_from_db()
    assert not newest.retracted
    page.locator(f"#lesson-{newest.pk} button").click()
    expect(dialog.get_by_role("button", name="Retract")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(f"#lesson-{newest.pk} button")).to_have_text("Restore")
    newest.refresh_from_db()
    assert newest.retracted


def test_y_copies_the_address_of_the_view(project: Project, signed_in: SignedIn, reviewer: User) -> None:
    page = signed_in(reviewer, permissions=["clipboard-read", "clipboard-write"])
    page.goto("/lessons/?kind=gain")
    page.keyboard.press("y")
    expect(page.locator("#messages")).to_contain_text("Copied")
    assert str(page.evaluate("navigator.clipboard.readText()")).endswith("/lessons/?kind=gain")


def test_arrows_walk_the_graph_and_the_address_keeps_the_choice(
    search: MergeRequest, signed_in: SignedIn, reviewer: User
) -> None:
    upper, lower = search.candidate.idea, search.parent.candidate.idea  # type: ignore[union-attr]
    page = signed_in(reviewer)
    page.goto(f"/p/question/graph/?node={upper.public_id}")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**node={lower.public_id}")
    expect(page.locator("#node")).to_contain_text(lower.hypothesis)
    expect(page.locator(f"#node-{lower.public_id}")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#node")).to_contain_text(upper.hypothesis)
    page.keyboard.press("=")
    page.wait_for_url("**view=table*")
    expect(page.locator(f"#row-{upper.public_id}")).to_have_class("chosen")


def test_a_new_idea_joins_the_graph_and_moves_nothing(
    search: MergeRequest, signed_in: SignedIn, reviewer: User, thread: Thread
) -> None:
    page = signed_in(reviewer)
    page.goto("/p/question/graph/")
    places = (
        "Object.fromEntries([...document.querySelectorAll('a.node')].map(n => [n.id, n.getAttribute('transform')]))"
    )
    before = page.evaluate(places)
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")
    idea = Idea.add(
        thread, Idea.next_number(thread), kind="technique", hypothesis="A new one", expected_effect=0.1, steps=[],
        fingerprint="new",
    )  # fmt: skip
    expect(page.locator(f"#node-{idea.public_id}")).to_be_attached(timeout=15_000)
    after = page.evaluate(places)
    assert {key: after[key] for key in before} == before and len(after) == len(before) + 1


@CLOSER
def test_nothing_serious_is_wrong_for_assistive_tools(
    search: MergeRequest, signed_in: SignedIn, reviewer: User, project: Project, axe: Callable[..., None], page: Page,
    theme: str, width: int,
) -> None:  # fmt: skip
    signed = signed_in(reviewer, theme=theme, width=width, reduced_motion="reduce")
    view = "graph" if width > 700 else ""
    graph = f"/p/question/graph/?node={search.candidate.idea.public_id}&view={view}"
    for address in ("/machines/", "/lessons/", "/settings/", graph, f"{graph}&lens=gain"):
        signed.goto(address)
        signed.wait_for_load_state("networkidle")
        axe(signed)
        assert signed.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, address
    signed.keyboard.press("Control+k")
    expect(signed.get_by_role("option").first).to_be_visible()
    axe(signed)
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    page.goto("/sign-in/")
    axe(page)
