"""The evidence page in a real browser: it moves by itself, `y` copies its line, `m` asks and says what it costs."""

from __future__ import annotations

import re
from collections.abc import Callable

from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from research.models import Experiment, Thread, Verdict
from tests.cast import World, focus, go, running

SignedIn = Callable[..., Page]


def open_page(page: Page, experiment: Experiment) -> None:
    page.goto(f"/e/{experiment.public_id}/evidence/")
    expect(page.locator("#freshness")).to_have_attribute("data-state", "live")  # scripts have run


def test_the_evidence_grows_on_the_page_until_the_verdict(
    signed_in: SignedIn, thread: Thread, world: World, member: User
) -> None:
    focus(thread, "alpha")
    go(thread)
    experiment = running(thread)
    assert experiment is not None
    page = signed_in(member, permissions=["clipboard-read", "clipboard-write"])
    open_page(page, experiment)
    expect(page.locator("#seeds")).to_contain_text("No pair is measured yet")
    world.run(1)
    expect(page.locator("#seeds svg")).to_have_attribute("aria-label", re.compile("1 of 1|0 of 1"))
    verdict = world.until_verdict(thread)
    assert verdict.experiment == experiment
    expect(page.locator("#summary")).to_contain_text(verdict.reason)
    expect(page.locator("#looks .for.improved")).to_have_count(1)
    page.keyboard.press("y")
    expect(page.locator("#messages")).to_contain_text("Copied")
    copied = str(page.evaluate("navigator.clipboard.readText()"))
    assert copied.startswith(f"question #{experiment.number}: improved, loss gain +0.0")
    assert copied.endswith(f"/e/{experiment.public_id}/evidence/")
    page.keyboard.press("o")
    page.wait_for_url(f"**/e/{experiment.public_id}/")
    page.keyboard.press("e")
    page.wait_for_url("**/evidence/")


def test_m_measures_as_many_pairs_as_would_decide(
    signed_in: SignedIn, thread: Thread, world: World, member: User
) -> None:
    focus(thread, "alpha")
    experiment = world.until_verdict(thread).experiment
    evidence = experiment.verdict.evidence
    gains = iter([0.0028, 0.0002, 0.0026, 0.0008])
    for pair in evidence["pairs"]:
        if pair["stage"] == "confirm":
            pair["candidate"] = pair["baseline"] - next(gains)
    Verdict.objects.filter(pk=experiment.verdict.pk).update(evidence=evidence, kind="inconclusive")
    needed = experiment.pairs_to_decide()
    assert needed
    page = signed_in(member)
    open_page(page, experiment)
    page.keyboard.press("m")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Measure {needed} more pairs of this comparison? They cost about")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: experiment.public_id not in url)
    assert experiment.replicates.get().wanted_pairs == needed
