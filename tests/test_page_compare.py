"""The compare page: gains side by side, what the code sets differently, and what cannot be compared."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from research.models import Experiment, Idea, Project, Result, Role, Thread
from research.views.constants import differing
from tests.cast import World, begin, focus, person
from tests.stage import Stage


@pytest.fixture
def viewer(client: Client, project: Project) -> User:
    vera = person("vera", Role.VIEWER, project)
    client.force_login(vera)
    return vera


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    """Two experiments on the same baseline: DELTA is tried before the gain of ALPHA has moved the head."""
    thread = stage.thread
    for name in ("delta", "alpha"):
        focus(thread, name)
        stage.world.until_verdict(thread)
    return stage.kept()


@pytest.fixture
def two(thread: Thread) -> list[Experiment]:
    return list(thread.experiments.order_by("number"))


def shown(client: Client, *experiments: Experiment, more: str = "") -> str:
    ids = ",".join(experiment.public_id for experiment in experiments)
    response = client.get(f"/compare/?e={ids}{more}")
    assert response.status_code == 200
    return response.content.decode()


def test_gains_stand_side_by_side_with_what_can_be_said(client: Client, viewer: User, two: list[Experiment]) -> None:
    text = shown(client, *two)
    for experiment in two:
        assert f"#{experiment.number}</a>" in text and experiment.verdict.get_kind_display() in text
    assert "the same baseline, other seeds: the difference of two independent means" in text
    assert "ALPHA" in text and "DELTA" in text  # constants that differ
    assert "every pair" in text


def test_only_constants_that_differ_are_listed(two: list[Experiment]) -> None:
    commits = [experiment.candidate_commit for experiment in two]
    rows = differing(two[0].project.repository_path, commits)
    assert [(row.path, row.name) for row in rows] == [("model.py", "DELTA"), ("train.py", "ALPHA")]
    assert rows[0].values[1] == "1.0" and rows[0].values[0] != "1.0"


def test_a_gain_on_top_of_another_adds_up(client: Client, viewer: User, world: World, thread: Thread) -> None:
    world.gain(thread, "beta")
    first, second = thread.experiments.filter(verdict__kind="improved").order_by("number")
    assert f"#{second.number} was measured on top of #{first.number}: their gains add up" in shown(
        client, first, second
    )


def test_what_is_not_mine_is_named_by_number_alone(
    client: Client, viewer: User, two: list[Experiment], world: World
) -> None:
    foreign = begin("secret")
    hidden = Experiment.objects.create(
        key="hidden", project=foreign, number=1, rule=foreign.rule, baseline_commit=foreign.champion,
        candidate_commit=foreign.champion,
    )  # fmt: skip
    text = shown(client, two[0], hidden)
    assert "1 of the experiments asked for cannot be shown" in text and "secret" not in text
    assert "secret" not in client.get("/compare/").content.decode()


def test_other_machines_are_warned_of(client: Client, viewer: User, two: list[Experiment]) -> None:
    assert "machine class differs" not in shown(client, *two)
    Result.objects.filter(trial__experiment=two[0]).update(machine_class="slow cpu")
    assert "machine class differs: quick cpu, 2 slots, slow cpu" in shown(client, *two)


def test_with_nothing_chosen_the_latest_are_offered(client: Client, viewer: User, two: list[Experiment]) -> None:
    text = client.get("/compare/").content.decode()
    assert f"?e={two[1].public_id}" in text and "Choose experiments" in text
    found = client.get("/compare/", {"q": "another DELTA"}).content.decode()
    assert f"?e={two[0].public_id}" in found and f"?e={two[1].public_id}" not in found
    assert f"?e={two[0].public_id}" in client.get("/compare/", {"q": f"#{two[0].number}"}).content.decode()


def test_before_any_verdict_the_page_says_so(client: Client, project: Project) -> None:
    client.force_login(person("nora", Role.VIEWER, begin("untried")))
    assert "Nothing to compare yet" in client.get("/compare/").content.decode()


def test_the_table_is_safe_in_a_spreadsheet_and_in_markdown(
    client: Client, viewer: User, two: list[Experiment]
) -> None:
    hostile = '=HYPERLINK("http://x")|<b>'
    Idea.objects.update(title=hostile)
    ids = ",".join(experiment.public_id for experiment in two)
    response = client.get(f"/compare/?e={ids}&format=csv")
    assert response["Content-Disposition"].startswith("attachment") and b"\"'=HYPERLINK" in response.content
    assert b",+0.0" in response.content  # a number keeps its sign
    page = shown(client, *two)
    assert "\\|\\&lt;b\\&gt;" in page and "<b>" not in page


def test_who_is_not_signed_in_is_sent_to_sign_in(client: Client) -> None:
    assert client.get("/compare/").status_code == 302


@pytest.mark.parametrize("query", ["e=,,,", "e=" + "a," * 400, "e=%00", "q=%00%FF", "part=effects", "part=between&e=x"])
def test_an_address_made_up_is_no_error(client: Client, viewer: User, query: str) -> None:
    assert client.get(f"/compare/?{query}").status_code == 200


def test_eight_experiments_cost_few_questions(
    client: Client, viewer: User, two: list[Experiment], django_assert_max_num_queries: object
) -> None:
    shown(client, *two)
    with django_assert_max_num_queries(30):  # type: ignore[operator]
        shown(client, *two)
