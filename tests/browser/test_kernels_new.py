"""The form of a new project in a real browser: data are prepared while it is filled in, and what was typed stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from benchmarks.data import data_folder
from runners import preparing
from tests.cast import toy_benchmarks
from tests.kernel_board_play import prepare


@pytest.fixture
def unprepared(db: None) -> Iterator[None]:
    """Somebody has asked for the data, which are not there yet."""
    log = preparing.log_of(settings.DATA_DIR, "toy_kernels", "")
    shutil.rmtree(data_folder("toy_kernels"), ignore_errors=True)
    log.unlink(missing_ok=True)
    with toy_benchmarks():
        assert preparing.ask(log)
        yield
    log.unlink(missing_ok=True)


def test_the_form_tells_how_far_its_data_are_and_then_lets_begin(
    signed_in: Callable[..., Page], unprepared: None, axe: Callable[..., None]
) -> None:
    page = signed_in(User.objects.create_superuser("mira"), width=390, theme="dark")
    page.goto("/projects/new/?benchmark=toy_kernels")
    expect(page.locator("#data")).to_contain_text("waits for the lab to begin it")
    expect(page.locator("#begin")).to_be_disabled()
    expect(page.locator("#begin-why")).to_be_visible()
    page.fill("#question", "How fast can they be?")
    preparing.log_of(settings.DATA_DIR, "toy_kernels", "").write_text("7 of 18: geglu_tanh\n")
    expect(page.locator("#data")).to_contain_text("7 of 18: geglu_tanh")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    axe(page, "#data")
    prepare()
    expect(page.locator("#data")).to_contain_text("are there")
    expect(page.locator("#begin")).to_be_enabled()
    expect(page.locator("#begin-why")).to_have_count(0)
    expect(page.locator("#question")).to_have_value("How fast can they be?")
    page.locator("#begin").click()
    expect(page.locator("h1")).to_have_text("toy_kernels-quick-reference")
    page.get_by_role("link", name="Kernels", exact=True).click()
    expect(page.locator("#kernel-map")).to_contain_text("Nothing is measured yet")
