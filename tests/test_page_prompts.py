"""Prompts of a project's own, and the budget of models, in the browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from research.loop.asking import prompt_for
from research.models import AuditEntry, Project, ProjectPrompt, Role, Thread
from tests.cast import begin, person
from tests.session_play import shown


@pytest.fixture
def mira(client: Client, project: Project) -> User:
    """A member, signed in."""
    mira = person("mira", Role.MEMBER, project)
    client.force_login(mira)
    return mira


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("LAB_LLM_MODEL", "LAB_LLM_BASE_URL", "LAB_MODELS"):
        monkeypatch.delenv(name, raising=False)
    yield


# Prompts


@pytest.fixture
def address(project: Project) -> str:
    return f"/p/{project.name}/prompts/"


def own_text(project: Project) -> str:
    from research.researchers.llm.prompts import load

    return f"{load('propose').text}\nPrefer <small> changes."


def test_a_project_may_have_its_own_text_and_go_back(
    client: Client, mira: User, project: Project, thread: Thread, address: str
) -> None:
    Thread.objects.filter(pk=thread.pk).update(researcher="llm")
    assert ProjectPrompt.of(project, "propose") is None and "No difference" in shown(client, address)
    client.post(f"{address}propose/", {"text": own_text(project), "base": "0", "act": "save"})
    own = ProjectPrompt.of(project, "propose")
    assert own is not None and (own.version, own.by) == (1, mira) and own.text.endswith("Prefer <small> changes.")
    page = shown(client, address)
    assert "own text, version 1" in page and "Prefer &lt;small&gt; changes." in page and 'class="added"' in page
    told = prompt_for(project, "propose")
    assert told.text == own.text and str(told) == f"propose own-1 {own.digest[:8]}"
    thread.refresh_from_db()
    assert thread.steered_by == mira  # whoever tells the models what to do may not approve what comes of it
    client.post(f"{address}propose/", {"act": "reset", "base": "1"})
    assert ProjectPrompt.of(project, "propose") is None and prompt_for(project, "propose").version == "1"
    page = shown(client, f"{address}?version=1")
    assert "back to the shipped text" in page and "Version 1 against the shipped text" in page
    acts = AuditEntry.objects.filter(action="prompt").order_by("pk").values_list("detail__version", "detail__shipped")
    assert list(acts) == [(1, False), (2, True)]


@pytest.mark.parametrize(("change", "why"), [
    (lambda text: "", "cannot be empty"),
    (lambda text: "Do what you like.", "the line `=== task ===` is missing"),
    (lambda text: text.replace("{{files}}", ""), "the place {{files}} is missing"),
    (lambda text: text + "{{fiels}}", "there is no {{fiels}} to fill in"),
    (lambda text: text + "x" * 70_000, "a prompt may have"),
])  # fmt: skip
def test_a_prompt_that_would_not_work_is_refused_and_stays_typed(
    client: Client, mira: User, project: Project, address: str, change: object, why: str
) -> None:
    text = change(own_text(project))  # type: ignore[operator]
    answer = client.post(f"{address}propose/", {"text": text, "base": "0", "act": "save"})
    page = unescape(answer.content.decode())
    assert answer.status_code == 422 and why.lower() in page.lower() and not ProjectPrompt.objects.exists()
    assert text[-200:] in page


def test_two_who_change_one_prompt_do_not_overwrite_each_other(
    client: Client, mira: User, project: Project, address: str
) -> None:
    text = own_text(project)
    client.post(f"{address}propose/", {"text": text, "base": "0"})
    for base, why in (("0", "somebody has changed this prompt meanwhile"), ("1", "nothing would change")):
        answer = client.post(f"{address}propose/", {"text": text, "base": base})
        assert answer.status_code == 422 and why.capitalize() in unescape(answer.content.decode())
    assert ProjectPrompt.objects.count() == 1


def test_a_viewer_reads_prompts_and_changes_none(client: Client, project: Project, address: str) -> None:
    client.force_login(person("vera", Role.VIEWER, project))
    page = shown(client, address)
    assert "<textarea" not in page and "The question: {{question}}" in page
    assert client.post(f"{address}propose/", {"text": own_text(project), "base": "0"}).status_code == 403
    shown(client, f"{address}?prompt=nothing", 404)


def test_prompts_of_one_project_are_not_those_of_another(client: Client, mira: User, project: Project) -> None:
    other = begin("another")
    ProjectPrompt.change(mira, project, "review", "own", 0)
    assert ProjectPrompt.of(other, "review") is None and ProjectPrompt.of(project, "review") is not None


# The budget of a project


def test_money_and_tokens_are_part_of_the_budget(client: Client, mira: User, project: Project) -> None:
    fields = {"action": "budget", "max_money": "2.5", "max_tokens": "3,000,000"}
    client.post(f"/p/{project.name}/state/", fields)
    project.refresh_from_db()
    assert (project.max_money, project.max_tokens) == (Decimal("2.5"), 3_000_000)
    assert AuditEntry.objects.filter(action="budget", detail__max_money=2.5).exists()
    page = shown(client, f"/p/{project.name}/")
    assert 'name="max_money" value="2.5"' in page and 'name="max_tokens" value="3000000"' in page
    client.post(f"/p/{project.name}/state/", {**fields, "max_money": "2000000"})
    assert "below 1e+06" in shown(client, f"/p/{project.name}/")
    client.post(f"/p/{project.name}/state/", {"action": "budget"})
    project.refresh_from_db()
    assert project.max_money is None and project.max_tokens is None


def test_a_new_project_takes_a_budget_for_models(client: Client, toy: None, db: None) -> None:
    client.force_login(person("mo", Role.MEMBER))
    fields = {
        "benchmark": "toy", "preset": "quick", "start": "plain", "researcher": "catalogue", "threads": "1",
        "name": "costly", "max_money": "12.25", "max_tokens": "5000000",
    }  # fmt: skip
    assert client.post("/projects/new/", fields).status_code == 302
    project = Project.objects.get(name="costly")
    assert (project.max_money, project.max_tokens) == (Decimal("12.25"), 5_000_000)
    assert project.created <= timezone.now()
    for wrong in ({"max_money": "0"}, {"max_tokens": "-1"}):
        assert client.post("/projects/new/", {**fields, "name": "other", **wrong}).status_code == 422


def test_a_researcher_that_needs_a_model_can_be_chosen_only_where_there_is_one(
    client: Client, mira: User, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.force_login(person("mo", Role.MEMBER))
    fields = {
        "benchmark": "toy", "preset": "quick", "start": "plain", "researcher": "llm", "threads": "1", "name": "asked",
    }  # fmt: skip
    page = shown(client, "/projects/new/?benchmark=toy")
    assert re.search(r'value="llm"\s+disabled>llm \(no model is configured\)', page) and "LAB_LLM_BASE_URL=" in page
    refused = client.post("/projects/new/", fields)
    assert refused.status_code == 422 and "llm cannot search here: no model is configured" in refused.content.decode()
    page = client.post(f"/p/{project.name}/threads/", {"researcher": "llm"}, follow=True).content.decode()
    assert "llm cannot search here" in page and project.threads.count() == 1
    monkeypatch.setenv("LAB_MODELS", "/nowhere/models.toml")
    assert "which cannot be read" in shown(client, "/projects/new/?benchmark=toy")
    monkeypatch.delenv("LAB_MODELS")
    monkeypatch.setenv("LAB_LLM_MODEL", "small")
    assert client.post("/projects/new/", fields).status_code == 302
    assert Project.objects.get(name="asked").threads.get().researcher == "llm"
