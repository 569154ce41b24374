"""The project page once there are gains: its figures, its frontier, its parts and its list of experiments."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from research.models import Experiment, Idea, Project, Result, Thread
from research.views.frontier import compound, drawing, frontier_of, key_of
from research.views.gain import gain_of
from research.views.spent import spent_of
from tests.stage import Stage
from tests.test_page_project import text_of

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from tests.cast import World

PARTS = ("head", "figures", "frontier", "threads", "requests", "experiments", "lessons", "budget", "samples")
HOSTILE = "<script>alert('it')</script>"


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


@pytest.fixture
def mia(client: Client, member: User) -> Client:
    client.force_login(member)
    return client


def test_the_page_tells_the_gain_of_the_champion_and_of_what_waits(
    mia: Client, project: Project, thread: Thread, world: World, reviewer: User
) -> None:
    first = world.gain(thread, "alpha")
    page = text_of(mia, f"/p/{project.name}/")
    assert f"/review/{first.public_id}/" in page and "0 merged, 1 waiting" in page
    assert "the champion is still the start" in page
    first.approve(first.commit, reviewer)
    page = text_of(mia, f"/p/{project.name}/")
    assert "product of 1 measured gain" in page and "approved by rosa" in page
    seen = frontier_of(project, key_of(Project.objects.get(pk=project.pk)))
    gain = gain_of(first.verdict)
    assert seen.gain is not None and gain is not None and seen.gain.height == pytest.approx(gain.mean)
    assert seen.gain.low < 0.05 < seen.gain.high, "the interval holds what ALPHA is worth"


def test_gains_compound_along_the_chain_and_attempts_stand_on_their_baseline(
    project: Project, thread: Thread, world: World, reviewer: User
) -> None:
    world.gain(thread, "alpha")
    second = world.gain(thread, "beta")
    second.approve(second.commit, reviewer)
    project.refresh_from_db()
    seen = frontier_of(project)
    assert [round(rise.height, 2) for rise in seen.steps] == [0.05, 0.10]
    first, both = (math.log((1 - rise.low) / (1 - rise.high)) for rise in seen.steps)
    assert both > first, "errors add up along the chain"
    assert seen.attempts[1].base == pytest.approx(seen.steps[0].height)
    assert compound(0.1, 0.1, lower=True) == pytest.approx(0.19)
    assert compound(0.1, 0.1, lower=False) == pytest.approx(0.21)
    heights, kinds = seen.path_of(thread.pk)
    assert kinds == ["improved", "improved"] and heights[0] == 0 and heights == sorted(heights)


def test_the_frontier_is_drawn_anew_only_when_it_changed(
    mia: Client, project: Project, thread: Thread, world: World
) -> None:
    world.gain(thread, "alpha")
    key = key_of(project)
    assert drawing(key) is drawing(key_of(project)), "kept between two looks"
    page = text_of(mia, f"/p/{project.name}/?part=frontier")
    have = page.split("have=")[1].split('"')[0]
    same = mia.get(f"/p/{project.name}/?part=frontier&have={have}")
    assert same.status_code == 204 and not same.content
    world.gain(thread, "beta")
    assert mia.get(f"/p/{project.name}/?part=frontier&have={have}").status_code == 200


@pytest.mark.parametrize("part", PARTS)
def test_every_part_stands_alone(mia: Client, project: Project, thread: Thread, world: World, part: str) -> None:
    world.gain(thread, "alpha")
    fragment = text_of(mia, f"/p/{project.name}/?part={part}")
    assert "<html" not in fragment


def test_the_page_costs_few_queries_however_many_experiments(
    mia: Client, project: Project, thread: Thread, world: World
) -> None:
    def cost(url: str) -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            text_of(mia, url)
        return len(queries)

    world.gain(thread, "alpha")
    text_of(mia, f"/p/{project.name}/")
    few = cost(f"/p/{project.name}/?part=experiments")
    world.gain(thread, "beta", "gamma")
    text_of(mia, f"/p/{project.name}/")
    assert cost(f"/p/{project.name}/?part=experiments") <= few
    assert cost(f"/p/{project.name}/?part=threads") <= 20
    assert cost(f"/p/{project.name}/") <= 62


def test_hostile_text_of_a_candidate_stays_text(mia: Client, project: Project, thread: Thread, world: World) -> None:
    world.gain(thread, "alpha")
    Idea.objects.update(title=HOSTILE, hypothesis=HOSTILE)
    Result.objects.filter(trial__commit=project.start_commit).update(sample=HOSTILE)
    project.lessons.update(text=HOSTILE)
    Project.objects.update(state_reason=HOSTILE)
    drawing.cache_clear()
    page = text_of(mia, f"/p/{project.name}/")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "What the models write" in page


def test_a_spreadsheet_runs_nothing(mia: Client, project: Project, thread: Thread, world: World) -> None:
    world.gain(thread, "alpha")
    Idea.objects.update(hypothesis="=1+1")
    response = mia.get(f"/p/{project.name}/?export=csv")
    lines = b"".join(response.streaming_content).decode().splitlines()  # type: ignore[attr-defined]
    assert "attachment" in response["Content-Disposition"]
    assert lines[0].startswith("experiment,thread") and len(lines) == 1 + project.experiments.count()
    assert any(",'=1+1,improved," in line for line in lines)


def test_filters_live_in_the_address_and_odd_ones_are_ignored(
    mia: Client, project: Project, thread: Thread, world: World
) -> None:
    world.gain(thread, "alpha")
    experiment = Experiment.objects.get(verdict__kind="improved")
    row = f"experiment-{experiment.public_id}"
    base = f"/p/{project.name}/?part=experiments"
    assert row in text_of(mia, f"{base}&kind=improved") and row in text_of(mia, f"{base}&thread=1&kind=")
    assert row not in text_of(mia, f"{base}&kind=worse") and row not in text_of(mia, f"{base}&thread=7")
    for odd in ("kind=<x>", "page=-3", "page=99999999999", "thread=٣", "x=sideways"):
        assert row in text_of(mia, f"{base}&{odd}")


def test_old_results_are_summed_once(project: Project, thread: Thread, world: World) -> None:
    world.gain(thread, "alpha")
    total = Result.objects.count()
    Result.objects.update(created="2020-01-01T00:00:00Z")
    assert spent_of(project).all.trials == total and spent_of(project).threads[thread.pk].seconds == total
    Result.objects.filter(pk=Result.objects.order_by("pk")[0].pk).update(device_seconds=99)
    world.gain(thread, "beta")
    assert spent_of(project).all.seconds == Result.objects.count(), "what was summed is not read again"
