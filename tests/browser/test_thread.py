"""A thread in a real browser: its curve moves, it is steered, its list stays put; nothing is out of reach."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from research.models import Artifact, Event, Lease, Result, Series, Thread, Trial
from research.models.series import Outcome
from runners.points import Stretch
from tests.browser.conftest import CLOSER
from tests.browser.test_live_charts import points, until
from tests.cast import World, focus, go, running, step

SignedIn = Callable[..., Page]


@pytest.fixture
def mira(db: None) -> User:
    return User.objects.create_superuser("mira")


def open_page(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")  # scripts have run


def write(lease: Lease, first: int, count: int) -> None:
    """So many points of the loss, as a worker stores them."""
    steps = struct.pack(f"<{count}q", *range(first, first + count))
    values = struct.pack(f"<{count}d", *(2.0 - 0.001 * number for number in range(first, first + count)))
    stretch = Stretch(lease.trial_id, lease.generation, "loss", first, steps, values)
    assert Series.objects.append([stretch]) == [Outcome.STORED]


def test_the_curve_of_what_runs_moves_without_a_reload(
    server: str, signed_in: SignedIn, thread: Thread, world: World, mira: User
) -> None:
    go(thread)
    page = signed_in(mira)
    open_page(page, f"/t/{thread.public_id}/")
    expect(page.locator("#now")).to_contain_text("no machine is attached")
    leases = Trial.objects.claim_pair(world.machine, "player")
    expect(page.locator("#now")).to_contain_text("screening, pair 1 of 1 on quick")
    for lease in leases:
        write(lease, 0, 50)
    expect(page.locator("lab-chart")).to_have_count(1)
    candidate = next(lease for lease in leases if lease.trial.arm == "candidate")
    for number in range(5):
        write(candidate, 50 * (number + 1), 50)
    chart = str(page.locator("lab-chart").get_attribute("id"))
    until(page, lambda: points(page, candidate.trial.public_id, chart) == 300)
    for lease in leases:
        world.finish(lease)
    expect(page.locator("#experiments")).to_contain_text("so far, n = 1")


def test_a_thread_is_steered_and_answers_on_the_open_page(
    server: str, signed_in: SignedIn, thread: Thread, world: World, mira: User
) -> None:
    page = signed_in(mira)
    open_page(page, f"/t/{thread.public_id}/")
    page.keyboard.press("s")  # unfolds the panel
    expect(page.locator("#steer-note")).to_be_visible()
    page.locator("#steer-find").fill("bet")
    expect(page.locator("#steer-labels li:visible")).to_have_count(1)
    page.get_by_label("beta: focus").check()
    page.locator("#steer-note").fill("ALPHA has been tried enough")
    page.get_by_role("button", name="Steer", exact=True).click()
    expect(page.locator("#messages")).to_contain_text("the next idea follows it")
    expect(page.locator("#steered")).to_contain_text("not obeyed yet")
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")
    while not Event.objects.filter(kind=Event.Kind.OBEYED).exists():
        assert step(thread) is not None
    expect(page.locator("#steered")).to_contain_text("another BETA")  # no reload
    expect(page.locator("#events")).to_contain_text("first idea under the new steering")
    thread.refresh_from_db()
    assert thread.directives["focus"] == ["beta"] and thread.steered_by == mira


def test_rows_wait_while_a_person_points_at_them(
    server: str, signed_in: SignedIn, thread: Thread, world: World, mira: User
) -> None:
    world.until_verdict(thread)
    page = signed_in(mira)
    open_page(page, f"/t/{thread.public_id}/")
    rows = page.locator("#experiments [data-row]")
    before = rows.count()
    rows.first.hover()
    world.until_verdict(thread)
    expect(page.locator("#experiments .news-pill")).to_be_visible()
    assert rows.count() == before
    page.locator("h1").hover()
    expect(rows).to_have_count(before + 1)
    page.keyboard.press("j")
    page.keyboard.press("o")
    page.wait_for_url("**/e/*/")
    expect(page.locator("#outcome")).to_contain_text("pair")


def test_an_unfolded_file_shows_its_change_and_stays_open(
    server: str, signed_in: SignedIn, thread: Thread, world: World, mira: User
) -> None:
    world.gain(thread, "alpha")
    page = signed_in(mira)
    open_page(page, f"/t/{thread.public_id}/")
    page.locator("#diff summary").first.click()
    expect(page.locator("#diff .added").first).to_contain_text("ALPHA")
    Event.record(Event.Kind.NOTE, "something happened", thread=thread)
    expect(page.locator("#events")).to_contain_text("something happened")
    page.wait_for_timeout(500)
    expect(page.locator("#diff .added").first).to_be_visible()


def test_a_hostile_log_stays_text_in_the_browser(
    server: str, signed_in: SignedIn, thread: Thread, world: World, mira: User
) -> None:
    experiment = world.until_verdict(thread).experiment
    log = Artifact.store(b"<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\nlast line")
    Result.objects.filter(trial__experiment=experiment).update(log=log)
    page = signed_in(mira)
    open_page(page, f"/e/{experiment.public_id}/")
    expect(page.locator("#log pre")).to_contain_text("<script>window.hacked = 1</script>")
    assert page.evaluate("() => window.hacked") is None


@CLOSER
def test_every_page_of_a_thread_is_within_reach(
    server: str, signed_in: SignedIn, thread: Thread, world: World, mira: User, axe: Callable[..., None],
    theme: str, width: int,
) -> None:  # fmt: skip
    world.gain(thread, "alpha")
    focus(thread, "delta")
    go(thread)
    for lease in Trial.objects.claim_pair(world.machine, "player"):
        write(lease, 0, 50)
    first, second = thread.experiments.order_by("number")[:2]
    Result.objects.filter(trial__experiment=first).update(log=Artifact.store(b"step 1\nstep 2\n"))
    page = signed_in(mira, theme=theme, width=width)
    addresses = (
        f"/t/{thread.public_id}/", f"/e/{first.public_id}/", f"/e/{second.public_id}/",
        f"/compare/?e={first.public_id},{second.public_id}", "/compare/",
    )  # fmt: skip
    for address in addresses:
        open_page(page, address)
        for summary in page.locator("main summary:visible").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        axe(page)
    assert running(thread) is not None
