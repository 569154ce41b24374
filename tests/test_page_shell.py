"""Sign-in, settings and the palette: what is around every page."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from research.models import Machine, MergeRequest, Preferences, Project, Role, Thread
from tests.cast import World, begin, person


def found(client: Client, query: str) -> list[dict[str, str]]:
    reply = client.get("/palette/", {"q": query})
    assert reply.status_code == 200
    return list(json.loads(reply.content)["items"])


# ---- signing in and settings ---------------------------------------------------------------------------------------


def test_the_sign_in_page_says_how_to_get_a_link(client: Client, db: None) -> None:
    page = client.get("/sign-in/?next=/settings/").content.decode()
    assert "manage.py signin" in page and 'value="/settings/"' in page
    assert "live.js" not in page  # nobody who is signed out opens a socket


def test_a_wrong_password_is_said_plainly(client: Client, reviewer: User) -> None:
    page = client.post("/sign-in/", {"username": "rosa", "password": "guess"}).content.decode()
    assert "do not fit together" in page and 'value="rosa"' in page


def test_settings_need_somebody_who_is_signed_in(client: Client, db: None) -> None:
    assert client.get("/settings/").headers["Location"] == "/sign-in/?next=/settings/"


def test_the_theme_is_stored_and_stands_in_every_page(client: Client, reviewer: User) -> None:
    client.force_login(reviewer)
    # As the browser sends it, from the key t.
    assert client.post("/settings/", {"act": "theme", "theme": "dark"}, headers={"X-CSRFToken": "x"}).status_code == 204
    assert Preferences.of(reviewer).theme == "dark"
    assert 'data-theme="dark"' in client.get("/settings/").content.decode()
    client.post("/settings/", {"act": "theme", "theme": "plaid"})
    assert Preferences.of(reviewer).theme == "dark"


def test_single_letter_keys_can_be_switched_off(client: Client, reviewer: User) -> None:
    client.force_login(reviewer)
    client.post("/settings/", {"act": "keys"})
    assert 'data-shortcuts="off"' in client.get("/settings/").content.decode()
    client.post("/settings/", {"act": "keys", "shortcuts": "on"})
    assert 'data-shortcuts="on"' in client.get("/settings/").content.decode()


def test_settings_lead_to_members_and_audit(client: Client, project: Project) -> None:
    client.force_login(person("vera", Role.VIEWER, project))
    page = client.get("/settings/").content.decode()
    assert "/p/question/members/" in page and "/p/question/audit/" in page and '"/audit/"' not in page
    client.force_login(person("ada", Role.ADMIN))
    page = client.get("/settings/").content.decode()
    assert 'href="/audit/"' in page and 'href="/members/"' in page


def test_an_unknown_act_changes_nothing(client: Client, reviewer: User) -> None:
    client.force_login(reviewer)
    assert client.post("/settings/", {"act": "promote"}).status_code == 405


# ---- the palette ---------------------------------------------------------------------------------------------------


@pytest.fixture
def request_of(world: World, thread: Thread) -> MergeRequest:
    return world.gain(thread, "alpha")


def test_the_palette_finds_an_experiment_by_number_and_by_words(
    client: Client, reviewer: User, request_of: MergeRequest
) -> None:
    client.force_login(reviewer)
    experiment = request_of.verdict.experiment
    hit = {"kind": "experiment", "url": f"/e/{experiment.public_id}/"}
    for query in (str(experiment.number), f"#{experiment.number}", request_of.candidate.idea.hypothesis.split()[0]):
        assert any(hit.items() <= line.items() for line in found(client, query)), query
    kinds = {line["kind"] for line in found(client, "alpha")}
    assert {"review", "experiment", "lesson"} <= kinds


def test_the_palette_at_rest_offers_what_waits_and_where_work_goes_on(
    client: Client, reviewer: User, request_of: MergeRequest
) -> None:
    client.force_login(reviewer)
    assert [line["kind"] for line in found(client, "")] == ["review", "project", "thread"]


def test_the_palette_shows_nobody_what_they_may_not_see(
    client: Client, outsider: User, request_of: MergeRequest
) -> None:
    client.force_login(outsider)
    assert found(client, "alpha") == [] and found(client, "") == [] and found(client, "question") == []
    assert [line["kind"] for line in found(client, "quick")] == ["machine"]  # machines are everybody's


def test_the_palette_answers_in_few_queries_with_few_lines(
    client: Client, reviewer: User, request_of: MergeRequest, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(12):
        begin(f"question-{number}")
        Machine.objects.create(name=f"question {number}", machine_class="test")
    client.force_login(reviewer)
    with django_assert_max_num_queries(10):  # session, person, memberships, one a kind
        assert len(found(client, "question")) <= 20


def test_the_palette_takes_any_text_as_text(client: Client, reviewer: User, request_of: MergeRequest) -> None:
    client.force_login(reviewer)
    request_of.candidate.idea.__class__.objects.update(hypothesis="<img src=x onerror=alert(1)>")
    reply = client.get("/palette/", {"q": "onerror"})
    assert reply.headers["Content-Type"] == "application/json"
    assert json.loads(reply.content)["items"][0]["text"].endswith("<img src=x onerror=alert(1)>")
    for query in ("%", "' or 1=1 --", "9" * 60, "\x00", "thread 99999999999999999999"):
        found(client, query)
