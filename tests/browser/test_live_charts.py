"""The live path as a person sees it: real Chromium, real websocket, points written as a worker writes them."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from research.models import Event
from tests.browser.conftest import Daphne, Errors
from tests.browser.play import Player, falling

GONE = r"WebSocket connection to|ERR_CONNECTION_REFUSED"  # what Chromium says while a server is away
EMPTY = "The first points come when a machine takes the pair."


@pytest.fixture
def rosa(db: None) -> User:
    return User.objects.create_superuser("rosa")


def line(player: Player, number: int, **more: Any) -> dict[str, Any]:
    return {"trial": player.ids[number], "label": f"seed {number + 1}", "slot": number, "live": True, **more}


def spec(*lines: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metric": "loss", "title": "training loss", "unit": "nats", "height": 220, "lines": list(lines), **more}


def address(*specs: dict[str, Any], **more: Any) -> str:
    return "/test/charts/?" + urlencode({"charts": json.dumps(specs), **more})


def points(page: Page, trial: str, chart: str = "chart-1") -> int:
    """How many points of a trial the chart holds."""
    return page.evaluate(f"lab.charts.get('{chart}')?.lines.get('{trial}')?.full?.curve.points ?? 0")


def until(page: Page, condition: Callable[[], bool], seconds: float = 15) -> float:
    """Wait in the browser's time; returns how long it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, "it did not happen in time"
        page.wait_for_timeout(50)
    return time.monotonic() - begin


def streamed(page: Page, trial: str, metric: str = "loss") -> tuple[int, int, int]:
    """Generation, the first point not seen yet, and how many points came over the socket; zeros before the first."""
    topic = f"'trial:{trial}'"
    received, counts = page.evaluate(f"[lab.live.received({topic}), lab.live.points({topic})]")
    at = received.get(metric, {"generation": 0, "next": 0})
    return at["generation"], at["next"], counts.get(metric, 0)


def steps(page: Page, trial: str) -> list[float]:
    return page.evaluate(f"lab.charts.get('chart-1').lines.get('{trial}').full.curve.end")


def test_points_arrive_while_they_are_written(signed_in: Callable[..., Page], rosa: User) -> None:
    player = Player()
    page, trial = signed_in(rosa), player.ids[0]
    page.goto(address(spec(line(player, 0))))
    expect(page.locator(".chart-empty")).to_have_text(EMPTY)
    player.lease()
    player.play(100, rate=100)
    until(page, lambda: points(page, trial) == player.count() == 100)
    assert streamed(page, trial) == (1, 100, 100)
    assert steps(page, trial) == list(range(100))
    expect(page.locator(".chart-empty")).to_be_hidden()
    expect(page.locator("#freshness")).to_have_text("live")
    plot = page.get_by_role("img", name="1 line, training loss, newest")
    expect(plot).to_have_attribute("aria-label", f"1 line, training loss, newest {falling(99):.4f} at step 99")
    player.finish()
    expect(page.locator(".chart-legend small")).to_have_text("ended")


def test_a_lost_server_loses_no_point(
    signed_in: Callable[..., Page], rosa: User, daphne: Daphne, errors: Errors
) -> None:
    player = Player()
    player.lease()
    player.append([falling(step) for step in range(200)])  # history, before the page
    page, trial = signed_in(rosa), player.ids[0]
    page.goto(address(spec(line(player, 0))))
    until(page, lambda: points(page, trial) == 200)
    player.play(50, rate=200)
    until(page, lambda: points(page, trial) == 250)
    daphne.stop()
    until(page, lambda: page.evaluate("lab.live.state") != "live")
    expect(page.locator("#freshness")).to_have_text("reconnecting")
    player.append([falling(step) for step in range(250, 750)])
    daphne.start()
    took = until(page, lambda: points(page, trial) >= 750)
    player.play(50, rate=200)
    until(page, lambda: points(page, trial) == player.count() == 800)
    print(f"500 missed points were there {took:.1f} s after the server was back")
    assert streamed(page, trial) == (1, 800, 600)  # each over the socket once; the first 200 came by HTTP
    assert steps(page, trial) == list(range(800))
    expect(page.locator("#freshness")).to_have_text("live")
    errors.expect(GONE)


def test_a_cut_socket_opens_again_by_itself(signed_in: Callable[..., Page], rosa: User) -> None:
    player = Player()
    player.lease()
    page, trial = signed_in(rosa), player.ids[0]
    page.goto(address(spec(line(player, 0))))
    until(page, lambda: bool(page.evaluate(f"lab.live.received('trial:{trial}').loss")))
    player.append([1.0] * 10)
    until(page, lambda: points(page, trial) == 10)
    page.evaluate("lab.live.socket.close()")
    player.append([2.0] * 500)
    took = until(page, lambda: points(page, trial) == player.count() == 510)
    assert streamed(page, trial) == (1, 510, 510)
    assert took < 3


def test_a_second_lease_begins_the_line_again(signed_in: Callable[..., Page], rosa: User) -> None:
    player = Player()
    player.lease()
    player.append([9.0] * 120)
    page, trial = signed_in(rosa), player.ids[0]
    page.goto(address(spec(line(player, 0))))
    until(page, lambda: points(page, trial) == 120)
    player.lose()
    player.lease()
    player.append([falling(step) for step in range(40)])
    until(page, lambda: streamed(page, trial) == (2, 40, 40))
    assert points(page, trial) == player.count() == 40
    last = page.locator(".chart-legend b").first
    expect(last).to_have_text(f"{falling(39):.4f}")


def test_what_is_not_finite_is_marked_and_hides_no_spike(signed_in: Callable[..., Page], rosa: User) -> None:
    player = Player()
    player.lease()
    values = [falling(step) for step in range(20_000)]
    values[5_000], values[12_345] = math.nan, 50.0  # twenty points a bucket
    for first in range(0, 20_000, 5_000):
        player.append(values[first : first + 5_000])
    page, trial = signed_in(rosa), player.ids[0]
    page.goto(address(spec(line(player, 0))))
    mark = page.locator(".chart-mark")
    expect(mark).to_have_count(1)
    expect(mark).to_have_attribute("title", "1 value NaN or infinite at step 5,000")
    assert page.evaluate(f"lab.charts.get('chart-1').lines.get('{trial}').full.curve.extent()") == [
        pytest.approx(1.12, abs=0.001), 50.0, 1,
    ]  # fmt: skip
    player.append([math.inf, 1.0])
    expect(mark).to_have_count(2)
    page.get_by_role("button", name="Table").click()
    cells = page.get_by_role("row", name="seed 1").get_by_role("cell")
    expect(cells).to_have_text(["1", "20,001", "1", "50", "20,002", "2"])


def test_a_zoom_is_cut_anew_and_lives_in_the_address(signed_in: Callable[..., Page], rosa: User) -> None:
    player = Player()
    player.lease()
    player.append([falling(step) for step in range(20_000)])
    page, trial = signed_in(rosa), player.ids[0]
    page.goto(address(spec(line(player, 0))))
    until(page, lambda: points(page, trial) == 20_000)
    box = page.locator(".chart-over").bounding_box()
    assert box
    with page.expect_response(lambda answer: "from=" in answer.url):
        page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.30, box["y"] + 60, steps=4)
        page.mouse.up()
    cut = f"lab.charts.get('chart-1').lines.get('{trial}').cut"
    until(page, lambda: bool(page.evaluate(f"{cut}?.curve.length")))
    assert 990 <= page.evaluate(f"{cut}.curve.points") <= 1010  # every point of a twentieth
    asked = parse_qs(urlsplit(page.url).query)["x.chart-1"][0]
    player.append([1.0] * 10)  # what streams in does not move it
    until(page, lambda: points(page, trial) == 20_010)
    expect(page.get_by_role("button", name="Jump to live")).to_be_visible()
    page.get_by_role("slider", name="Smooth").fill("5")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="log", exact=True).click()
    range_before = page.evaluate("lab.charts.get('chart-1').range()")
    assert page.evaluate("lab.charts.get('chart-1').zoomed")
    page.reload()
    until(page, lambda: bool(page.evaluate(f"{cut}?.curve.length")))
    assert page.evaluate("lab.charts.get('chart-1').range()") == range_before
    assert parse_qs(urlsplit(page.url).query)["x.chart-1"] == [asked]
    expect(page.get_by_role("slider", name="Smooth")).to_have_value("5")
    expect(page.get_by_role("button", name="log", exact=True)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Fit").click()
    assert page.evaluate("lab.charts.get('chart-1').range()") == [0, 20_009]
    assert "x.chart-1" not in page.url


def test_a_zoom_to_the_end_follows_the_newest_point(signed_in: Callable[..., Page], rosa: User) -> None:
    player = Player()
    player.lease()
    player.append([falling(step) for step in range(1_000)])
    page, trial = signed_in(rosa), player.ids[0]
    page.goto(address(spec(line(player, 0)), **{"x.chart-1": "900.."}))
    until(page, lambda: points(page, trial) == 1_000)
    player.play(50, rate=200)
    until(page, lambda: page.evaluate("lab.charts.get('chart-1').range()") == [900, 1_049])
    until(page, lambda: page.evaluate(f"lab.charts.get('chart-1').lines.get('{trial}').curve.points") == 150)


def test_a_changed_spec_adds_and_ends_lines_and_keeps_the_zoom(signed_in: Callable[..., Page], rosa: User) -> None:
    player = Player(2)
    for number in range(2):
        player.lease(number)
        player.append([falling(step) for step in range(500)], number)
    page, (one, two) = signed_in(rosa), player.ids
    page.goto(address(spec(line(player, 0)), **{"x.chart-1": "100..200"}))
    until(page, lambda: points(page, one) == 500)
    page.evaluate("lab.charts.get('chart-1').lines.values().next().value.mine = true")
    changed = json.dumps(spec(line(player, 0, live=False), line(player, 1)))
    page.evaluate("spec => document.querySelector('lab-chart').setAttribute('spec', spec)", changed)
    until(page, lambda: points(page, two) == 500)
    assert page.evaluate("lab.charts.get('chart-1').range()") == [100, 200]
    assert page.evaluate(f"lab.charts.get('chart-1').lines.get('{one}').mine")  # it was not built anew
    ages = page.locator(".chart-legend small")
    expect(ages).to_have_text(["ended", "live"])
    page.locator(".chart-legend button").first.click()
    assert parse_qs(urlsplit(page.url).query)["hide"] == [one]
    expect(page.locator(".chart-legend button").first).to_have_attribute("aria-pressed", "false")


def test_a_fragment_that_comes_again_keeps_its_charts(signed_in: Callable[..., Page], rosa: User) -> None:
    player = Player()
    player.lease()
    player.append([falling(step) for step in range(300)])
    page, trial = signed_in(rosa), player.ids[0]
    page.goto(address(spec(line(player, 0, label="after NOTES notes")), **{"x.chart-1": "50..100"}))
    until(page, lambda: points(page, trial) == 300)
    page.evaluate("document.querySelector('canvas').mine = true")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/series/" in request.url else None)
    Event.record(Event.Kind.NOTE, "a note", project=player.project)
    expect(page.locator(".chart-label")).to_have_text("after 1 notes")
    assert page.evaluate("document.querySelector('canvas').mine")
    assert page.evaluate("lab.charts.get('chart-1').range()") == [50, 100]
    assert not asked


def test_a_hidden_tab_draws_nothing_and_has_all_when_it_is_back(signed_in: Callable[..., Page], rosa: User) -> None:
    player = Player()
    player.lease()
    page, trial = signed_in(rosa), player.ids[0]
    page.goto(address(spec(line(player, 0))))
    player.append([1.0] * 10)
    until(page, lambda: points(page, trial) == 10)
    show = """hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
        document.dispatchEvent(new Event('visibilitychange')); }"""
    page.evaluate(show, True)
    page.wait_for_timeout(200)
    summary = page.get_by_role("img")
    player.play(100, rate=100)
    until(page, lambda: points(page, trial) == 110)
    expect(summary).to_have_attribute("aria-label", "1 line, training loss, newest 1 at step 9")
    page.evaluate(show, False)
    expect(summary).to_have_attribute("aria-label", re.compile("at step 109$"))


def test_numbers_of_another_project_are_refused(signed_in: Callable[..., Page], outsider: User, errors: Errors) -> None:
    player = Player()
    player.lease()
    player.append([1.0] * 10)
    page = signed_in(outsider)
    page.goto(address(spec(line(player, 0))))
    expect(page.locator(".chart-problem")).to_have_text("The points could not be read (404).")
    errors.expect("404")


def colours(page: Page) -> list[str]:
    """The colours of the opaque pixels of the drawing."""
    return page.evaluate(
        """() => { const c = document.querySelector('canvas');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, seen = new Set();
        for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255) seen.add(`${d[i]},${d[i + 1]},${d[i + 2]}`);
        return [...seen]; }"""
    )


def test_the_theme_recolours_what_is_drawn(signed_in: Callable[..., Page], rosa: User, axe: Any) -> None:
    player = Player(2)
    for number in range(2):
        player.lease(number)
        player.append([falling(step) for step in range(300)], number)
    page = signed_in(rosa)
    page.goto(address(spec(line(player, 0), band=[player.ids[1]], bandLabel="baseline, 1 seed")))
    until(page, lambda: points(page, player.ids[0]) == points(page, player.ids[1]) == 300)
    page.wait_for_timeout(300)
    assert "0,114,178" in colours(page)
    axe(page)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(300)
    assert "86,180,233" in colours(page) and "0,114,178" not in colours(page)
    axe(page)


def test_a_chart_fits_a_phone_and_is_used_by_keyboard(signed_in: Callable[..., Page], rosa: User, axe: Any) -> None:
    player = Player()
    player.lease()
    player.append([falling(step) for step in range(101)])
    page = signed_in(rosa, theme="dark", width=360)
    page.goto(address(spec(line(player, 0)), spec(line(player, 0), metric="lr", title="learning rate", unit="")))
    until(page, lambda: points(page, player.ids[0]) == 101)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = page.locator(".chart-tools button:visible, .chart-tools a, .chart-tools input, .chart-legend button")
    assert all(
        box and box["height"] >= 24 and box["width"] >= 24 for box in (one.bounding_box() for one in sizes.all())
    )
    page.get_by_role("img", name="training loss").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".chart-said").first).to_have_text(f"Step 1: seed 1 {falling(1):.4f}")
    expect(page.locator(".chart-legend b").first).to_have_text(f"{falling(1):.4f}")
    page.get_by_role("button", name="Expand").first.click()
    expect(page.get_by_role("dialog", name="training loss")).to_be_visible()
    axe(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Expand").first).to_be_focused()
    axe(page)


def test_the_numbers_come_as_csv(signed_in: Callable[..., Page], rosa: User) -> None:
    player = Player()
    player.lease()
    player.append([1.5, math.nan, 0.25])
    page = signed_in(rosa)
    page.goto(address(spec(line(player, 0))))
    link = page.get_by_role("link", name="CSV").get_attribute("href")
    text = page.request.get(str(link)).text()
    assert len(text.splitlines()) == 4 and "0.25" in text


def test_somebody_who_is_signed_out_is_sent_to_sign_in(signed_in: Callable[..., Page], rosa: User) -> None:
    from django.contrib.sessions.models import Session

    page = signed_in(rosa)
    page.goto("/test/charts/")
    until(page, lambda: page.evaluate("lab.live.open"))
    Session.objects.all().delete()
    page.evaluate("void setTimeout(() => lab.live.socket.close(), 200)")  # what it answers comes before the page leaves
    page.wait_for_url("**/sign-in/?next=%2Ftest%2Fcharts%2F")


def test_ten_long_lines_are_drawn_within_a_second(signed_in: Callable[..., Page], rosa: User) -> None:
    player = Player(10)
    values = [falling(step) for step in range(20_000)]
    for number in range(10):
        player.lease(number)
        player.append([value + 0.02 * number for value in values], number)
        player.finish(number)
    page = signed_in(rosa)
    page.goto("/test/charts/")  # scripts are in the cache, as for anybody who has seen a page of the lab
    took, drawn = [], "performance.getEntriesByName('drawn chart-1').map((mark) => mark.startTime)"
    for _ in range(3):
        page.goto(address(spec(*(line(player, number, live=False) for number in range(10)))), wait_until="commit")
        until(page, lambda: bool(page.evaluate(drawn)))
        took.append(page.evaluate(drawn)[0])
        assert {points(page, trial) for trial in player.ids} == {20_000}
    draw = page.evaluate(
        """() => { const chart = lab.charts.get('chart-1'), begin = performance.now();
        for (let i = 0; i < 20; i++) chart.draw();
        return (performance.now() - begin) / 20; }"""
    )
    print(f"10 lines of 20,000 points: drawn {min(took):.0f} ms after navigation (of 3), {draw:.1f} ms a redraw")
    assert min(took) < 1_000 and draw < 60
