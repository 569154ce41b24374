"""The pages of agents from outside: their tokens, the brief, and the hint on a thread that waits for one."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from research.loop.begin import add_thread
from research.models import ApiToken, AuditEntry, Claim, Project, Role, Thread
from tests.cast import begin, person


@pytest.fixture
def mia(client: Client, project: Project) -> User:
    """Mia is a member of one project, signed in."""
    mia = person("mia", Role.MEMBER, project)
    client.force_login(mia)
    return mia


def page(client: Client, url: str) -> str:
    reply = client.get(url)
    assert reply.status_code == 200
    return str(reply.content.decode())


def make(client: Client, url: str = "/p/question/agents/", **data: str) -> str:
    """The text of a new token, read off the page that shows it."""
    reply = client.post(url, {"act": "make", "name": "coder", "may": "propose", "days": "30", **data})
    assert reply.status_code == 201, reply.content
    found = re.search(r"<code>(lab_\w+?_[\w-]+)</code>", reply.content.decode())
    assert found
    return found[1]


def test_a_member_makes_a_token_that_is_shown_once(client: Client, mia: User) -> None:
    text = make(client)
    token = ApiToken.of(text)
    assert token and token.may_propose and token.owner == mia and token.project and token.expires
    later = page(client, "/p/question/agents/")
    assert "coder" in later and text not in later and text.split("_", 2)[2] not in later
    assert not AuditEntry.objects.filter(detail__icontains=text.split("_", 2)[2]).exists()


def test_a_token_is_revoked_by_its_owner_and_by_an_admin_of_the_project(
    client: Client, mia: User, project: Project
) -> None:
    texts = [make(client, name=name) for name in ("first", "second")]
    ids = [text.split("_")[1] for text in texts]
    client.post("/p/question/agents/", {"act": "revoke", "token": ids[0]})
    assert [ApiToken.of(text) is None for text in texts] == [True, False]
    client.force_login(person("mara", Role.MEMBER, project))
    assert "second" not in page(client, "/p/question/agents/"), "of others only an admin sees them"
    client.post("/p/question/agents/", {"act": "revoke", "token": ids[1]})
    assert ApiToken.of(texts[1])
    client.force_login(person("ada", Role.ADMIN, project))
    assert "of mia" in page(client, "/p/question/agents/")
    client.post("/p/question/agents/", {"act": "revoke", "token": ids[1]})
    assert ApiToken.of(texts[1]) is None


def test_whoever_only_views_makes_tokens_that_only_read(client: Client, project: Project) -> None:
    client.force_login(person("vera", Role.VIEWER, project))
    assert "read and propose" not in page(client, "/p/question/agents/")
    asked = {"act": "make", "name": "x", "may": "propose", "days": "7"}
    assert client.post("/p/question/agents/", asked).status_code == 403
    token = ApiToken.of(make(client, may="read"))
    assert token and not token.may_propose


def test_a_token_on_ones_own_page_opens_what_one_sees_and_no_more(client: Client, mia: User) -> None:
    begin("plan-b")
    assert "plan-b" not in page(client, "/tokens/") and "every project" not in page(client, "/tokens/")
    for name in ("plan-b", ""):
        client.post("/tokens/", {"act": "make", "name": "spy", "may": "read", "days": "7", "project": name})
    client.post("/tokens/", {"act": "make", "name": "spy", "may": "read", "days": "never", "project": "question"})
    assert not ApiToken.objects.exists()
    token = ApiToken.of(make(client, "/tokens/", project="question"))
    assert token and [row.name for row in token.projects()] == ["question"]


def test_the_brief_is_what_an_agent_reads_with_the_labs_own_address(client: Client, mia: User) -> None:
    shown = page(client, "/p/question/brief/")
    assert (
        "API=http://testserver/api/v1;" in shown and "$API/projects/question/" in shown and "expected_effect" in shown
    )
    assert len(shown) < 40_000


def test_a_thread_for_agents_says_whom_it_waits_for(client: Client, mia: User, project: Project) -> None:
    thread: Thread = add_thread(project, "external", mia)
    url = f"/t/{thread.public_id}/"
    waiting = page(client, url)
    assert "Waits for an agent from outside" in waiting and "waiting for an agent from outside" in waiting
    token = ApiToken.of(make(client))
    assert token and Claim.take(thread, token)
    assert "has this thread until" in page(client, url)
    assert "coder of mia has it" in page(client, "/p/question/agents/?part=threads")


def test_a_name_that_is_markup_stays_text(client: Client, mia: User) -> None:
    make(client, name="<script>alert(1)</script>")
    assert "<script>alert(1)" not in page(client, "/p/question/agents/")
