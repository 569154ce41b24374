"""The members page: who has which role since when and from whom; roles, invitations and single-person mode."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from research.models import AuditEntry, Event, Membership, NotAllowed, Project, Role, SignInLink
from tests.cast import begin, person

CLICK = {"Sec-Fetch-Mode": "navigate"}


@pytest.fixture
def ada(client: Client, project: Project) -> User:
    """Ada administers one project, signed in."""
    ada = person("ada", Role.ADMIN, project)
    client.force_login(ada)
    return ada


def post(client: Client, url: str = "/p/question/members/", **data: object) -> str:
    reply = client.post(url, data, follow=True)
    assert reply.status_code in (200, 201)
    return str(reply.content.decode())


def test_an_admin_gives_and_takes_roles(client: Client, ada: User, project: Project, outsider: User) -> None:
    assert "otto is now reviewer" in post(client, act="give", user="otto", role=3)
    assert Membership.role_of(outsider, project) == Role.REVIEWER
    entry = AuditEntry.objects.get(action="member")
    assert entry.detail == {"user": "otto", "role": 3, "before": 0} and entry.project == project
    page = client.get("/p/question/members/").content.decode()
    row = page[page.index("otto") :]
    assert "from ada" in row and "has not come yet" in row
    assert "otto has no role" in post(client, act="give", user="otto", role=0)
    assert Membership.role_of(outsider, project) == 0


def test_the_same_role_again_is_no_act(client: Client, ada: User, outsider: User) -> None:
    for _ in range(2):
        post(client, act="give", user="otto", role=2)
    assert AuditEntry.objects.filter(action="member").count() == 1
    assert Event.objects.filter(kind=Event.Kind.MEMBER).count() == 1


def test_viewers_read_who_is_there_and_change_nothing(client: Client, project: Project, reviewer: User) -> None:
    client.force_login(person("vera", Role.VIEWER, project))
    page = client.get("/p/question/members/").content.decode()
    assert "vera" in page and "rosa" in page and "<select" not in page and "Switch it" not in page
    for act in ({"act": "give", "user": "vera", "role": 4}, {"act": "single"}, {"act": "invite", "user": "x"}):
        assert client.post("/p/question/members/", act).status_code == 403
    assert client.get("/members/").status_code == 403
    assert not AuditEntry.objects.exclude(action="sign in").exists()


def test_an_outsider_is_told_of_no_such_project(client: Client, project: Project, outsider: User) -> None:
    client.force_login(outsider)
    assert client.get("/p/question/members/").status_code == 404
    assert client.post("/p/question/members/", {"act": "give", "user": "otto", "role": 4}).status_code == 404
    with pytest.raises(NotAllowed):
        Membership.give(outsider, outsider, project, Role.ADMIN)
    assert not Membership.objects.filter(user=outsider).exists()


def test_the_last_admin_stays(client: Client, ada: User, project: Project, outsider: User) -> None:
    for role in (0, 3):
        assert "you are the last admin of question" in post(client, act="give", user="ada", role=role)
    assert Membership.role_of(ada, project) == Role.ADMIN
    Membership.give(ada, outsider, project, Role.ADMIN)
    assert client.post("/p/question/members/", {"act": "give", "user": "ada", "role": 0}).status_code == 302
    assert Membership.role_of(ada, project) == 0


def test_a_person_whom_nobody_knows_is_named_in_the_refusal(client: Client, ada: User) -> None:
    assert "Nobody here is called" in post(client, act="give", user="nemo", role=1)
    assert "That is no role" in post(client, act="give", user="ada", role="9")


def test_somebody_new_is_invited_by_a_link_that_works_once(client: Client, ada: User, project: Project) -> None:
    page = post(client, act="invite", user="nemo", role=2)
    (link,) = set(re.findall(r"http://testserver(/sign-in/[\w-]+/)", page))
    nemo = User.objects.get(username="nemo")
    assert not nemo.has_usable_password() and Membership.role_of(nemo, project) == Role.MEMBER
    assert AuditEntry.objects.get(action="sign-in link").detail == {"user": "nemo"}
    assert "sign-in" not in client.get("/p/question/members/").content.decode(), "the link is shown once"
    browser = Client()
    assert browser.get(link, headers=CLICK).status_code == 302
    assert browser.get("/p/question/").status_code == 200
    assert Client().get(link, headers=CLICK).status_code == 410


def test_who_was_invited_and_has_not_come_is_sent_another_link(client: Client, ada: User) -> None:
    post(client, act="invite", user="nemo", role=2)
    assert "Send nemo this link" in post(client, act="invite", user="nemo", role=2)
    assert SignInLink.objects.count() == 2 and User.objects.filter(username="nemo").count() == 1


@pytest.mark.parametrize("kind", ["came", "password", "superuser", "elsewhere", "otherwise"])
def test_nobody_gets_a_link_into_an_account_that_is_anothers(
    client: Client, ada: User, project: Project, kind: str
) -> None:
    post(client, act="invite", user="nemo", role=2)
    nemo = User.objects.get(username="nemo")
    if kind == "came":
        nemo.last_login = timezone.now()
    if kind == "password":
        nemo.set_password("a long enough one")
    nemo.is_superuser = kind == "superuser"
    nemo.save()
    if kind == "elsewhere":
        Membership.objects.create(user=nemo, project=begin("elsewhere"), role=Role.VIEWER, given_by=ada)
    if kind == "otherwise":
        Membership.objects.update(given_by=None)
    assert "nemo has an account already" in post(client, act="invite", user="NEMO", role=2)
    assert SignInLink.objects.count() == 1


@pytest.mark.parametrize("name", ["", "two words", "x" * 151, "<b>"])
def test_an_invitation_needs_a_name_that_can_be_one(client: Client, ada: User, name: str) -> None:
    page = post(client, act="invite", user=name, role=1)
    assert "cannot be a name here" in page or "name whom you invite" in page
    assert User.objects.count() == 1


def test_single_person_mode_is_switched_by_an_admin_and_shown(client: Client, ada: User, project: Project) -> None:
    assert "Single-person mode is on" in post(client, act="single", on="on")
    assert "single-person mode" in client.get("/p/question/").content.decode()
    post(client, act="single", on="on")
    post(client, act="single")
    entries = AuditEntry.objects.filter(action="single person").order_by("pk")
    assert [entry.detail["on"] for entry in entries] == [True, False]
    with pytest.raises(NotAllowed):
        project.set_single_person(person("rita", Role.REVIEWER, project), True)


def test_an_admin_of_the_lab_gives_roles_in_every_project(client: Client, project: Project, outsider: User) -> None:
    client.force_login(person("lena", Role.ADMIN))
    assert "otto is now viewer of every project" in post(client, "/members/", act="give", user="otto", role=1)
    assert Membership.role_of(outsider, project) == Role.VIEWER
    assert "otto" in client.get("/p/question/members/").content.decode()
    assert "one project at a time" in post(client, "/members/", act="single", on="on")
    assert client.post("/members/", {"act": "nothing"}).status_code == 404
