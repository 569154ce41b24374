"""A newcomer's evening in one browser: in by the link, a curve, a lost connection, a steered thread, a merge."""

from __future__ import annotations

from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from research.models import Event, MergeRequest, Project, SignInLink, Thread, Trial
from tests.browser.conftest import Daphne, Errors
from tests.browser.test_live_charts import points, until
from tests.browser.test_thread import write
from tests.cast import World, focus, go, step


def live(page: Page) -> None:
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live", timeout=20_000)


def test_a_newcomer_signs_in_watches_steers_and_merges(
    page: Page, daphne: Daphne, errors: Errors, thread: Thread, world: World
) -> None:
    nora = User.objects.create_superuser("nora")
    Project.objects.update(single_person=True)
    page.goto(f"/sign-in/{SignInLink.make(nora)}/")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Overview")
    live(page)

    # A curve moves; the server dies in the middle of it, and every point that was missed comes.
    focus(thread, "alpha")
    go(thread)
    leases = Trial.objects.claim_pair(world.machine, "player")
    candidate = next(lease for lease in leases if lease.trial.arm == "candidate")
    for lease in leases:
        write(lease, 0, 50)
    page.goto(f"/t/{thread.public_id}/")
    expect(page.locator("lab-chart")).to_have_count(1)
    chart, trial = str(page.locator("lab-chart").get_attribute("id")), candidate.trial.public_id
    live(page)
    write(candidate, 50, 100)
    until(page, lambda: points(page, trial, chart) == 150)
    daphne.stop()
    for number in range(4):
        write(candidate, 150 + 100 * number, 100)
    expect(page.locator("#freshness")).not_to_have_attribute("data-state", "live")
    daphne.start()
    stored = candidate.trial.series.get(generation=candidate.generation, metric="loss")
    until(page, lambda: points(page, trial, chart) == len(stored.read()[0]) == 550)
    errors.expect("WebSocket|ERR_CONNECTION|Failed to load|ERR_EMPTY")
    for lease in leases:
        world.finish(lease)

    # It is steered, and says that it obeys.
    live(page)
    page.keyboard.press("s")
    page.locator("#steer-find").fill("alph")
    page.get_by_label("alpha: focus").check()
    page.get_by_role("button", name="Steer", exact=True).click()
    expect(page.locator("#messages")).to_contain_text("the next idea follows it")
    request = merge_request(thread, world)
    assert Event.objects.filter(kind=Event.Kind.STEERED, actor=nora).exists()

    # A merge by keyboard alone.
    page.goto("/")
    live(page)
    for keys, address in ((("g", "r"), "**/review/"), (("j", "o"), f"**/review/{request.public_id}/")):
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_url(address)
        live(page)
    page.keyboard.press("a")
    expect(page.get_by_role("dialog")).to_contain_text(request.commit[:8])
    page.keyboard.press("Enter")
    expect(page.locator("#messages")).to_contain_text(f"main moved to {request.commit[:7]}")
    assert Project.objects.get().champion == request.commit


def merge_request(thread: Thread, world: World) -> MergeRequest:
    """The loop goes on until something waits for a person."""
    while not MergeRequest.objects.open().exists():
        if step(thread) is None:
            assert world.run(), "nothing is left to do"
    return MergeRequest.objects.open().get()
