"""The kernel board in a real browser: a cell changes when its trial ends, rows by keyboard, nothing out of reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from research.models import Project, Trial
from tests.browser.conftest import LOOKS, Looks, within_reach
from tests.cast import toy_benchmarks
from tests.kernel_board_play import FEW, Player, begin, candidate, prepare

ADDRESS = "/p/kernels/kernels/"
# In the page: when the first cell of a row says something else, in ms of the clock.
CHANGE = """() => {
  const cell = () => document.querySelector("#row-rms_norm li").textContent, was = cell();
  window.changed = new Promise(done => new MutationObserver(() => {
    if (cell() !== was) done(performance.timeOrigin + performance.now());
  }).observe(document.querySelector(".kernels-grid"), {subtree: true, childList: true, characterData: true}));
}"""


@pytest.fixture
def mira(db: None) -> User:
    return User.objects.create_superuser("mira")


@pytest.fixture
def kernels(db: None) -> Iterator[Project]:
    with toy_benchmarks():
        prepare()
        yield begin()


def live(page: Page) -> None:
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")


def test_a_cell_changes_within_a_second_of_its_trial_without_a_reload(
    signed_in: Callable[..., Page], mira: User, kernels: Project
) -> None:
    player, thread = Player(kernels), kernels.threads.order_by("number")[0]
    page = signed_in(mira)
    page.goto(ADDRESS)
    live(page)
    page.evaluate("window.stayed = true")
    cell = page.locator("#row-rms_norm li").first
    expect(cell).to_contain_text(".50")
    leases = player.start(candidate(thread, {"rms_norm": "# one pass"}))
    expect(page.locator("#row-rms_norm")).to_contain_text("measuring #1")
    page.wait_for_timeout(1_000)
    baseline = next(lease for lease in leases if lease.trial.arm == Trial.Arm.BASELINE)
    page.evaluate(CHANGE)
    player.finish(baseline, {"rms_norm": player.times("rms_norm", 3.0)})
    ended = Trial.objects.get(pk=baseline.trial_id).ended
    assert ended is not None
    expect(cell).to_contain_text(re.compile(r"^\.8"))
    at = page.evaluate("window.changed")
    assert at / 1000 - ended.timestamp() <= 1.0
    expect(cell).to_have_class(re.compile("changed"))
    expect(page.locator("#row-gqa_decode li")).to_have_count(3)  # rows that say the same were not sent again
    expect(page.locator("#row-gqa_decode li").first).not_to_have_class(re.compile("changed"))
    expect(cell).not_to_have_class(re.compile("changed"), timeout=8_000)
    assert page.evaluate("window.stayed")


def test_arrows_walk_the_rows_and_enter_opens_one(signed_in: Callable[..., Page], mira: User, kernels: Project) -> None:
    thread = kernels.threads.order_by("number")[0]
    Player(kernels).gain(thread, {"gqa_decode": 2.0})
    page = signed_in(mira, reduced_motion="reduce")
    page.goto(ADDRESS)
    live(page)
    first, second = page.locator("[data-problem]").nth(0), page.locator("[data-problem]").nth(1)
    page.keyboard.press("ArrowDown")
    expect(first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(second).to_be_focused()
    page.keyboard.press("Enter")
    panel = page.locator("#kernel-problem")
    expect(panel).to_contain_text("gqa_decode")
    expect(panel).to_be_focused()
    assert page.url.endswith("?problem=gqa_decode")
    expect(page.locator("#row-gqa_decode")).to_have_attribute("aria-current", "true")
    page.locator("[data-workload]").nth(1).click()
    expect(panel.locator("h3").first).to_contain_text("all workloads")
    assert "&w=" in page.url
    page.reload()
    expect(panel.locator("h3").first).to_contain_text("all workloads")
    page.locator('svg.roofline a[data-problem="gqa_decode"]').click(force=True)
    expect(panel.locator("h3").first).to_contain_text("geometric mean")
    panel.get_by_role("button", name="Re-time").click()
    page.wait_for_url("**/e/*/")
    expect(page.locator("#messages")).to_contain_text("4 more pairs are planned")


@LOOKS
def test_nothing_is_out_of_reach_on_the_board(
    signed_in: Callable[..., Page], mira: User, kernels: Project, axe: Callable[..., Any], looks: Looks
) -> None:
    page = signed_in(mira, reduced_motion="reduce")
    addresses = [ADDRESS]

    def look() -> None:
        for address in addresses:
            within_reach(page, axe, address, looks)

    look()  # an empty board
    player, thread = Player(kernels), kernels.threads.order_by("number")[0]
    for name, worth in zip(FEW, (0.4, 0.8, 1.4, 3.0, 8.0), strict=True):
        request = player.gain(thread, {name: worth})
        request.approve(request.commit)
    player.gain(thread, {"rms_norm": 9.0})
    player.measure(candidate(thread, {"moe_gating": "# bad"}), {"moe_gating": 1.0}, failure="bad_output")
    player.start(candidate(thread, {"gqa_prefill": "# now"}))
    addresses += [f"{ADDRESS}?problem=rms_norm", f"{ADDRESS}?show=latency&sort=recent", f"{ADDRESS}?show=speedup"]
    look()
