"""The audit: every act is written down, in words, to whoever may read it; nothing in it can be changed unseen."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from research.models import AuditEntry, Project, Role, SignInLink, Thread
from research.views.audit_board import A_PAGE
from research.views.signin import FAILURES_A_NAME, WINDOW
from tests.cast import World, begin, person

PAGE = "/p/question/audit/"


@pytest.fixture
def vera(client: Client, project: Project) -> User:
    """A viewer, signed in."""
    vera = person("vera", Role.VIEWER, project)
    client.force_login(vera)
    return vera


@pytest.fixture
def lena(client: Client, db: None) -> User:
    """An admin of the lab, signed in."""
    lena = person("lena", Role.ADMIN)
    client.force_login(lena)
    return lena


def text(client: Client, url: str = PAGE) -> str:
    reply = client.get(url)
    assert reply.status_code == 200
    return " ".join(reply.content.decode().split())


def test_an_untouched_project_says_that_nobody_did_anything(client: Client, vera: User) -> None:
    assert "Nobody has done anything yet" in text(client)


def test_entries_are_words_with_links_to_what_they_are_about(
    client: Client, vera: User, thread: Thread, world: World, member: User, reviewer: User
) -> None:
    thread.steer(member, ["alpha"], ["beta"], "only <b>cheap</b> ones")
    thread.project.set_budget(member, max_trials=500, max_device_seconds=7200.0, max_wall_seconds=None)
    request = world.gain(thread, "alpha")
    experiment = request.verdict.experiment
    more = request.more_seeds(member, 3)
    more.stop(member, "enough of it")
    request.request_changes(reviewer, "smaller, please")
    lesson = experiment.lesson
    lesson.retract(member)
    page = text(client)
    assert f'steered <a href="/t/{thread.public_id}/" data-open>thread 1</a>' in page
    assert "“only &lt;b&gt;cheap&lt;/b&gt; ones”" in page and '<span class="muted">focus</span> alpha' in page
    assert '<span class="muted">trials</span> 500' in page and "2 h 0 min" in page and "no limit" in page
    assert f'<a href="/e/{experiment.public_id}/" data-open>experiment {experiment.number}</a>' in page
    assert f'stopped <a href="/e/{more.public_id}/" data-open>experiment {more.number}</a>' in page
    assert "“enough of it”" in page
    assert f'requested changes of <a href="/review/{request.public_id}/"' in page and "“smaller, please”" in page
    assert f'href="/lessons/?id={lesson.pk}"' in page
    assert "{" not in page[page.index('id="entries"') : page.index("</section>")], "words, not JSON"
    assert page.index("retracted") < page.index("steered"), "newest first"


def test_an_approval_names_the_person_and_a_policy_is_no_person(
    client: Client, vera: User, thread: Thread, world: World, reviewer: User
) -> None:
    first = world.gain(thread, "alpha")
    first.approve(first.commit, reviewer)
    second = world.gain(thread, "beta")
    second.approve(second.commit)
    page = text(client)
    assert page.index("policy</td>") < page.index("rosa</td>")
    assert text(client, f"{PAGE}?person=policy").count("merged <a") == 1


def test_what_is_saved_is_what_was_written(client: Client, vera: User, thread: Thread, world: World) -> None:
    """Links are found when a page is drawn; the hash covers what stands in the file."""
    world.gain(thread, "alpha").reject(None, "no")
    (entry,) = json.loads(b"".join(client.get(f"{PAGE}?format=json")))
    assert entry["detail"] == AuditEntry.objects.get(action="reject").detail and entry["who"] == "policy"


def test_an_act_that_the_page_does_not_know_is_shown_by_its_name(client: Client, vera: User, project: Project) -> None:
    AuditEntry.record(vera, "polish", project, machine="m1", thread=9, request="gone/../x", rows=[1, 2], deep={"a": 1})
    page = text(client)
    assert "polish" in page and "thread 9" in page and "1, 2" in page and "a 1" in page


def test_filters_are_in_the_address_and_can_be_combined(
    client: Client, vera: User, project: Project, member: User, reviewer: User
) -> None:
    project.pause("lunch", member)
    project.resume(member)
    project.pause("night", reviewer)
    AuditEntry.objects.filter(actor=reviewer).update(at=timezone.now() - timedelta(days=3))
    assert text(client, f"{PAGE}?person=mia&action=pause").count('id="entry-') == 1
    yesterday = timezone.now() - timedelta(days=1)
    for since in (f"{yesterday:%Y-%m-%d}", f"{yesterday:%Y-%m-%dT%H:%M}"):
        assert "night" not in text(client, f"{PAGE}?since={since}") and "lunch" in text(client, f"{PAGE}?since={since}")
    assert "night" in text(client, f"{PAGE}?until={yesterday:%Y-%m-%d}")
    assert "lunch" in text(client, f"{PAGE}?until={timezone.now():%Y-%m-%d}"), "the day of `until` is meant whole"
    assert "No entry fits" in text(client, f"{PAGE}?person=nobody%20at%20all")
    for wrong in ("2026-13-45", "yesterday", "2026-01-01T99:00", "%00"):
        assert wrong == "%00" or "since is no day" in text(client, f"{PAGE}?since={wrong}")


def test_older_entries_are_behind_a_cursor_that_new_ones_do_not_move(
    client: Client, vera: User, project: Project
) -> None:
    for number in range(A_PAGE + 5):
        AuditEntry.record(vera, "count", project, number=number)
    oldest = list(AuditEntry.objects.filter(action="count").order_by("pk").values_list("pk", flat=True))
    page = text(client)
    assert page.count('id="entry-') == A_PAGE and f"before={oldest[5]}" in page
    AuditEntry.record(vera, "count", project, number=99)
    older = text(client, f"{PAGE}?before={oldest[5]}")
    assert older.count('id="entry-') == 5 and "data-live=" not in older[older.index('id="entries"') :].split(">")[0]


def test_an_unchanged_list_is_not_sent_again(client: Client, vera: User, project: Project, member: User) -> None:
    have = text(client).split("have=")[1].split('"')[0]
    assert client.get(f"{PAGE}?part=entries&have={have}").status_code == 204
    project.pause("", member)
    assert "paused" in text(client, f"{PAGE}?part=entries&have={have}")


def test_what_the_filters_leave_can_be_saved(client: Client, vera: User, project: Project, member: User) -> None:
    project.pause("=1+1", member)
    project.resume(member)
    reply = client.get(f"{PAGE}?action=pause&format=csv")
    lines = b"".join(reply).decode().splitlines()
    assert reply["Content-Disposition"] == 'attachment; filename="question-audit.csv"' and len(lines) == 2
    assert "mia,pause,question,the project,“=1+1”," in lines[1]
    entries = json.loads(b"".join(client.get(f"{PAGE}?format=json")))
    assert [entry["action"] for entry in entries] == ["resume", "pause"] and len(entries[0]["hash"]) == 64
    assert json.loads(b"".join(client.get(f"{PAGE}?person=x&format=json"))) == []


def test_a_page_of_entries_costs_few_queries(
    client: Client, vera: User, project: Project, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(40):
        AuditEntry.record(vera, "more seeds", project, experiment=number, thread=1)
    with django_assert_max_num_queries(10):
        text(client, f"{PAGE}?part=entries")


# Who reads what


def test_the_audit_of_the_lab_is_for_its_admins(client: Client, vera: User) -> None:
    reply = client.get("/audit/")
    assert reply.status_code == 403 and "only an admin of the lab" in reply.content.decode()
    client.force_login(person("ada", Role.ADMIN, Project.objects.get()))
    assert client.get("/audit/").status_code == 403


def test_the_audit_of_the_lab_shows_every_project_and_the_door(
    client: Client, lena: User, project: Project, member: User
) -> None:
    begin("other", started_by=member)
    project.pause("", member)
    page = text(client, "/audit/")
    assert '<a href="/p/other/">other</a>' in page and "signed in" in page and "the lab" in page
    page = text(client, "/audit/?project=other")
    assert "began" in page and "paused" not in page[page.index('id="entries"') :]


def test_a_project_shows_nothing_of_another(client: Client, vera: User, member: User) -> None:
    begin("other", started_by=member)
    assert "began" not in text(client) and client.get("/p/other/audit/").status_code == 404


def test_nothing_can_be_written_or_taken_away_over_the_web(client: Client, lena: User, project: Project) -> None:
    for method in (client.post, client.put, client.patch, client.delete):
        assert method(PAGE).status_code == 405 and method("/audit/").status_code == 405


# The door


def test_who_comes_and_goes_and_who_fails_is_written_down(client: Client, db: None) -> None:
    User.objects.create_user("mia", password="a long enough one")
    client.post("/sign-in/", {"username": "mia", "password": "wrong"})
    client.post("/sign-in/", {"username": "my password, typed too early", "password": "wrong"})
    client.post("/sign-in/", {"username": "mia", "password": "a long enough one"})
    client.post("/sign-out/")
    found = [(entry.who, entry.action, entry.detail) for entry in AuditEntry.objects.order_by("pk")]
    here = {"address": "127.0.0.1"}
    assert found == [
        ("nobody", "failed sign-in", {"user": "mia", **here}),
        ("nobody", "failed sign-in", {"user": "an unknown name", **here}),
        ("mia", "sign in", here),
        ("mia", "sign out", here),
    ]


def test_passwords_cannot_be_tried_out(client: Client, db: None) -> None:
    mia = User.objects.create_user("mia", password="a long enough one")
    right = {"username": "mia", "password": "a long enough one"}
    for _ in range(FAILURES_A_NAME):
        assert client.post("/sign-in/", {"username": "mia", "password": "wrong"}).status_code == 200
    refused = client.post("/sign-in/", right)
    assert refused.status_code == 429 and refused["Retry-After"] == "600"
    assert "Wait ten minutes" in refused.content.decode()
    assert client.post("/sign-in/", {"username": "ben", "password": "wrong"}).status_code == 200, "others may try"
    assert AuditEntry.objects.filter(action="failed sign-in").count() == FAILURES_A_NAME + 1, "what waits costs no row"
    link = client.get(f"/sign-in/{SignInLink.make(mia)}/", headers={"Sec-Fetch-Mode": "navigate"})
    assert link.status_code == 302, "a link still works"
    client.logout()
    AuditEntry.objects.update(at=timezone.now() - WINDOW)
    assert client.post("/sign-in/", right).status_code == 302


def test_the_admin_has_no_door_of_its_own(client: Client, db: None) -> None:
    assert client.get("/admin/login/?next=/admin/auth/")["Location"] == "/sign-in/?next=/admin/auth/"
    client.force_login(person("vera", Role.ADMIN))
    assert client.get("/admin/", follow=True).status_code == 403, "an admin of the lab is not staff of its database"


def test_a_link_is_written_down_when_it_is_made_used_and_used_again(client: Client, member: User) -> None:
    token = SignInLink.make(member)
    for _ in range(2):
        Client().get(f"/sign-in/{token}/", headers={"Sec-Fetch-Mode": "navigate"})
    Client().get("/sign-in/never-was-one/", headers={"Sec-Fetch-Mode": "navigate"})
    found = [(entry.who, entry.action) for entry in AuditEntry.objects.order_by("pk")]
    assert found == [("console", "sign-in link"), ("mia", "sign in"), ("nobody", "failed sign-in")]


def test_what_is_done_in_the_admin_is_written_down(client: Client, outsider: User) -> None:
    client.force_login(User.objects.create_superuser("sue"))
    form = {"username": "otto", "is_active": "on", "is_superuser": "on", "date_joined_0": "2026-01-01",
            "date_joined_1": "00:00:00"}  # fmt: skip
    assert client.post(f"/admin/auth/user/{outsider.pk}/change/", form).status_code == 302
    client.post(f"/admin/auth/user/{outsider.pk}/delete/", {"post": "yes"})
    found = AuditEntry.objects.filter(action="administer", who="sue").order_by("pk")
    assert [(entry.detail["did"], entry.detail["what"]) for entry in found] == [
        ("changed", "user otto"), ("deleted", "user otto"),
    ]  # fmt: skip
    assert "Superuser status" in found[0].detail["how"]
    assert "delete_selected" not in client.get("/admin/auth/user/").content.decode()


def test_a_name_stays_when_its_account_is_gone(client: Client, lena: User, project: Project, member: User) -> None:
    project.pause("lunch", member)
    member.delete()
    assert "mia" in text(client, PAGE)


# The chain


def audit(*arguments: str) -> str:
    out = StringIO()
    call_command("audit", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def three(project: Project, member: User) -> list[AuditEntry]:
    project.pause("lunch", member)
    project.resume(member)
    project.pause("night", member)
    return list(AuditEntry.objects.order_by("pk"))


def test_untouched_entries_fit_together(three: list[AuditEntry]) -> None:
    assert audit() == f"3 entries, none changed; newest hash {three[-1].hash}\n"
    assert "none changed" in audit("--noted", three[0].hash)


@pytest.mark.parametrize("change", [{"who": "rosa"}, {"detail": {"reason": "dinner"}}, {"action": "resume"}])
def test_a_changed_entry_is_found(three: list[AuditEntry], change: dict[str, object]) -> None:
    AuditEntry.objects.filter(pk=three[0].pk).update(**change)
    with pytest.raises(CommandError, match=f"entry {three[0].pk} .* was changed"):
        audit()


def test_a_missing_entry_is_found(three: list[AuditEntry]) -> None:
    newest = three[-1].hash
    three[1].delete()
    with pytest.raises(CommandError, match="or entries before it are gone"):
        audit()
    AuditEntry.objects.filter(pk=three[2].pk).delete()
    assert "1 entries" in audit()
    with pytest.raises(CommandError, match="taken off the end"):
        audit("--noted", newest)


def test_entries_from_before_there_were_hashes_are_let_be(three: list[AuditEntry], member: User) -> None:
    AuditEntry.objects.update(hash="")
    AuditEntry.record(member, "count", None)
    assert "4 entries" in audit()
