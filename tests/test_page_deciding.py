"""Yields, predictions and limits on the pages: what they show, to whom, and what their forms do."""

from __future__ import annotations

import re
from html import unescape
from xml.etree import ElementTree

import pytest
from django.contrib.auth.models import User
from django.test import Client

from research.drawing.predictions import Point, scatter
from research.management.summary import summary
from research.models import Project, Role, Thread
from research.validation.predictions import predictions, rank_correlation, shrunk
from research.validation.yields import Outcome, Tried
from tests.cast import World, person
from tests.test_deciding_loop import past, spend

pytestmark = pytest.mark.django_db


@pytest.fixture
def mira(client: Client, project: Project) -> User:
    user = person("mira", Role.MEMBER, project)
    client.force_login(user)
    return user


def words(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, response.content[:500]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", response.content.decode())))


# Pure


def test_predictions_are_scored_and_failures_counted() -> None:
    def one(number: int, said: float, came: float | None, outcome: Outcome) -> Tried:
        return Tried(number, 1, "llm", "small", "explore", outcome, said, came, number)

    tried = [
        one(1, 0.01, 0.0, Outcome.NO_GAIN), one(2, 0.02, 0.01, Outcome.NO_GAIN), one(3, 0.03, 0.01, Outcome.NO_GAIN),
        one(4, 0.04, 0.03, Outcome.CONFIRMED), one(5, 0.5, None, Outcome.FAILED), one(6, 0.1, None, Outcome.WAITING),
    ]  # fmt: skip
    (row,) = predictions(tried)
    assert (row.who, row.scored, row.failed) == ("small", 4, 1)
    assert row.bias == pytest.approx(0.0125) and row.error == pytest.approx(0.0125)
    assert row.order == pytest.approx(0.9487, abs=1e-3)
    assert [(part.ideas, part.confirmed) for part in row.quantiles] == [(2, 0), (2, 1)]
    assert predictions([]) == []


def test_a_rank_correlation_needs_three_pairs_that_differ() -> None:
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2], [1, 2]) is None and rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert shrunk(0.1, 0, 1.0) == 0 and shrunk(0.1, 9, 1.0) == pytest.approx(0.09)


def test_points_are_drawn_and_names_are_escaped_and_bounded() -> None:
    points = [Point(0, "<b>&", 0.01 * number, 0.02, number % 2 == 0, number) for number in range(500)]
    svg = scatter(points, 'a "summary" <b>')
    assert len(ElementTree.fromstring(svg).findall(".//circle")) == 400 and "<b>" not in svg
    assert scatter([], "none") == ""
    assert ElementTree.fromstring(scatter([Point(0, "one", 0.0, 0.0, False, 1)], "one")) is not None


# Pages


def test_pages_without_ideas_say_what_will_stand_there(client: Client, mira: User, thread: Thread) -> None:
    whole = words(client, "/p/question/")
    assert "Nothing tried yet" in whole and "No idea is scored yet" in whole
    shown = words(client, f"/t/{thread.public_id}/")
    assert "Nothing is set: it ends with its ideas" in shown and "30 without one are a plateau here" in shown
    for url in ("/p/question/?part=yields", "/p/question/?part=predictions", f"/t/{thread.public_id}/?part=deciding"):
        assert client.get(url).status_code == 200


def test_the_project_shows_money_and_device_time_for_a_confirmed_gain(
    client: Client, mira: User, thread: Thread, world: World
) -> None:
    world.gain(thread, "alpha")
    gained = past(thread, "improved", "no_difference", "invalid", model="small", researcher="llm")[0]
    spend(thread, gained, "small", "1.5", 12_000)
    text = words(client, "/p/question/?part=yields")
    assert re.search(r"small 3 3 1 \+0\.8 % 0\.0 s 12,000 1\.50 0\.0 s, 1\.50 money", text), text
    assert re.search(r"catalogue \d+ 1 1 \+\d\.\d %", text), text
    assert "By mode of working" in text and "all" in text
    assert "money for models 1.50" in words(client, "/p/question/?part=budget").replace("Money", "money")
    mine = words(client, f"/t/{thread.public_id}/?part=deciding")
    assert "1.50 of money in 12,000 tokens, 0.750 for one confirmed gain" in mine
    scored = words(client, "/p/question/?part=predictions")
    assert re.search(r"small 2 1 \+1\.20 % 1\.20 %", scored), scored
    found = summary(Project.objects.get())
    assert {row["who"] for row in found["yields"]} == {"catalogue", "small"}
    assert {row["who"]: row["failed"] for row in found["predictions"]} == {"small": 1, "catalogue": 0}


def test_a_plateau_stands_on_the_page(client: Client, mira: User, thread: Thread) -> None:
    past(thread, *["no_difference"] * 30)
    text = words(client, f"/t/{thread.public_id}/?part=deciding")
    assert "Plateau: 30 experiments without a confirmed gain" in text and "Its researcher goes on" in text


def test_names_of_models_are_no_markup(client: Client, mira: User, thread: Thread) -> None:
    past(thread, "improved", model="<script>x</script>", researcher="llm")
    for part in ("yields", "predictions"):
        assert b"<script>x" not in client.get(f"/p/question/?part={part}").content


def test_a_member_sets_limits_and_sees_how_far_they_are(client: Client, mira: User, thread: Thread) -> None:
    past(thread, "no_difference", "no_difference")
    url = f"/t/{thread.public_id}/"
    form = {
        "experiments_without_gain": "8",
        "device_hours": "1.5",
        "until": "2031-02-03",
        "max_trials": "200",
        "max_money": "10",
    }
    assert client.post(f"{url}criteria/", form).status_code == 302
    thread.refresh_from_db()
    assert thread.criteria == {
        "experiments_without_gain": 8, "device_seconds_without_gain": 5400.0, "until": "2031-02-03"
    }  # fmt: skip
    text = words(client, url)
    assert "Experiments without a confirmed gain 2 of 8" in text and "Trials 0 of 200" in text
    shown = client.get(url).content.decode()
    assert 'name="device_hours" value="1.5"' in shown and 'value="2031-02-03"' in shown
    assert 'name="max_money" value="10"' in shown
    client.post(f"{url}criteria/", {})
    thread.refresh_from_db()
    assert thread.criteria == {} and thread.max_trials is None


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"experiments_without_gain": "many"}, "not a number"),
        ({"experiments_without_gain": "2.5"}, "a whole number above 0"),
        ({"until": "tomorrow"}, "until is a date"),
        ({"max_money": "-1"}, "must be above 0"),
        ({"money_without_gain": "1e400"}, "not a number below a million"),
    ],
)
def test_a_limit_that_means_nothing_is_refused_on_the_page(
    client: Client, mira: User, thread: Thread, form: dict[str, str], problem: str
) -> None:
    url = f"/t/{thread.public_id}/"
    assert problem in client.post(f"{url}criteria/", form, follow=True).content.decode()
    thread.refresh_from_db()
    assert (thread.criteria, thread.max_money) == ({}, None)


def test_a_member_prices_device_time(client: Client, mira: User, thread: Thread) -> None:
    client.post("/p/question/price/", {"device_price": "7.2"})
    assert Project.objects.get().price_a_second == pytest.approx(0.002)
    assert "a device-hour counts as 7.20" in words(client, "/p/question/?part=yields")
    assert "not a number" in client.post("/p/question/price/", {"device_price": "x"}, follow=True).content.decode()
    client.post("/p/question/price/", {"device_price": ""})
    assert Project.objects.get().device_price is None


def test_a_viewer_sees_the_figures_and_no_form(client: Client, project: Project, thread: Thread) -> None:
    client.force_login(person("vera", Role.VIEWER, project))
    assert "Change the price" not in words(client, "/p/question/")
    assert "Change when it is given up" not in words(client, f"/t/{thread.public_id}/")
    assert client.post(f"/t/{thread.public_id}/criteria/", {}).status_code == 403
