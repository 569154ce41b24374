"""Every address of the lab, walked by a cast: who sees it, who may act there, and that each act is in the audit.

An address that is new is walked without a word here if it begins like those in `PLACES`. An address that accepts a form
has to be played in `ACTS`, or named in `PERSONAL` where the form changes nothing but its sender's own affairs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, reverse

from research import urls
from research.models import (
    AuditEntry,
    Comment,
    Event,
    Experiment,
    Finding,
    FoundTechnique,
    Idea,
    Lesson,
    Membership,
    MergeRequest,
    Project,
    Role,
    Session,
    Thread,
)  # fmt: skip
from research.researchers.llm.prompts import load
from tests.cast import World, begin, person
from tests.session_play import whole_session
from tests.stage import Stage

OPEN = {"sign-in", "sign-in-link", "sign-out", "healthz", "readyz"}  # for whoever comes
PERSONAL = {"settings", "tokens", "seen", "viewed", "diff-layout", "sign-in", "sign-in-link", "sign-out"}
NOTHING = {"str": "zzzzzzzzzz", "int": 999_999}


@dataclass
class Scene:
    """A project with one of each, and people around it."""

    project: Project
    thread: Thread
    world: World
    requests: dict[str, MergeRequest]
    people: dict[str, User]
    comment: Comment
    finding: Finding
    session: Session
    technique: FoundTechnique
    clients: dict[str, Client] = field(default_factory=dict)

    @property
    def experiment(self) -> Experiment:
        """The first one; more pairs of it, while they are being measured."""
        first = self.requests["alpha"].verdict.experiment
        return first.replicates.running().first() or first

    @property
    def places(self) -> dict[str, Any]:
        """What an address of the project names first."""
        request = self.requests["alpha"]
        return {
            "p": self.project.name, "t": self.thread.public_id, "e": self.experiment.public_id,
            "review": request.public_id, "lessons": Lesson.objects.get(experiment=request.verdict.experiment).pk,
            "machines": self.world.machine.public_id, "findings": self.finding.pk, "s": self.session.public_id,
            "techniques": self.technique.public_id,
        }  # fmt: skip

    @property
    def further(self) -> dict[str, Any]:
        """What it may name after that."""
        return {"number": 0, "trial": "none", "comment": self.comment.public_id, "prompt": "propose"}

    def client(self, name: str) -> Client:
        if name not in self.clients:
            self.clients[name] = Client()
            self.clients[name].force_login(self.people[name])
        return self.clients[name]

    def address(self, pattern: URLPattern, exists: bool = True) -> str:
        """An address of this pattern; or one that is alike and names nothing."""
        route, values = str(pattern.pattern), {}
        names = list(pattern.pattern.converters)
        for name in names:
            values[name] = self.further.get(name)
        if names:
            first = route.split("/")[0]
            assert first in self.places, f"{route}: say in Scene.places which row it names"
            one = self.places[first]
            values[names[0]] = one if exists else NOTHING[type(one).__name__]
        assert None not in values.values(), f"{route}: say in Scene.further what {values} may be"
        return reverse(str(pattern.name), kwargs=values)


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    thread = begin("hidden-plan").threads.get()
    stage.world.gain(thread, "alpha", "beta", "gamma")
    return stage.kept()


@pytest.fixture
def scene(world: World, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """ "hidden-plan" has requests open; olga is admin of another project, the others have a role in this one."""
    monkeypatch.setenv("LAB_LLM_MODEL", "small")
    project = Project.objects.get(name="hidden-plan")
    thread = project.threads.get()
    requests = dict(zip(("alpha", "beta", "gamma"), thread.merge_requests.order_by("pk"), strict=True))
    people = {str(role.label): person(str(role.label), role, project) for role in Role}
    people |= {
        "outsider": person("outsider", None),
        "olga": person("olga", Role.ADMIN, Project.objects.get(name="question")),
    }
    people |= {"lab": person("lab", Role.ADMIN)}
    first = requests["alpha"]
    comment = Comment.make(first, people["lab"], "a secret remark")
    finding = Finding.objects.create(
        experiment=first.verdict.experiment, kind="look", severity="review", message="a secret finding"
    )
    Idea.objects.filter(candidate__experiment=first.verdict.experiment).update(kind=Idea.Kind.CHANGE)
    technique = FoundTechnique.objects.create(
        project=project, experiment=first.verdict.experiment, benchmark="toy", name="a_secret", family="train",
        title="a secret technique", hypothesis="It lowers the loss.", source="here", patch=first.candidate.diff.patch,
        prior_gain=0.0, prior_sd=0.01, state=FoundTechnique.State.RETURNED,
    )  # fmt: skip
    session = whole_session(thread)
    AuditEntry.objects.all().delete()
    return Scene(project, thread, world, requests, people, comment, finding, session, technique)


def patterns() -> list[URLPattern]:
    return list(urls.urlpatterns)


def of_projects() -> Iterator[URLPattern]:
    """Addresses that name a row of a project; machines are everybody's to see."""
    return (
        each
        for each in patterns()
        if each.pattern.converters and each.name not in OPEN and not str(each.pattern).startswith("machines/")
    )


def text(reply: Any) -> str:
    """What a reply says, without the tokens and times that are new in each."""
    return re.sub(r'(csrfmiddlewaretoken" value=|X-CSRFToken": |data-now=)"\w+"', "", reply.content.decode())


# Who sees what


def test_whoever_is_not_signed_in_is_sent_to_the_door(scene: Scene) -> None:
    stranger = Client()
    for each in patterns():
        if each.name not in OPEN:
            url = scene.address(each)
            for reply in (stranger.get(url), stranger.post(url)):
                assert reply.status_code == 302 and reply["Location"].startswith("/sign-in/"), url


@pytest.mark.parametrize("name", ["outsider", "olga"])
def test_to_whoever_has_no_role_a_project_is_as_if_it_did_not_exist(scene: Scene, name: str) -> None:
    """The same answer, word for word, as for what never was; whatever is sent."""
    client = scene.client(name)
    data = {str(act.route): act.data(scene) for act in ACTS}
    for each in of_projects():
        here, nowhere = scene.address(each), scene.address(each, exists=False)
        sent = data.get(str(each.name), {})
        for first, second in (
            (client.get(here), client.get(nowhere)),
            (client.post(here, sent), client.post(nowhere, sent)),
        ):
            assert first.status_code in (404, 405), here
            assert (first.status_code, text(first)) == (second.status_code, text(second)), here
    assert not AuditEntry.objects.exclude(action="sign in").exists()


@pytest.mark.parametrize("name", ["outsider", "olga"])
def test_pages_of_the_lab_name_nothing_of_projects_that_are_not_ones_own(scene: Scene, name: str) -> None:
    request, client = scene.requests["alpha"], scene.client(name)
    experiment = request.verdict.experiment
    trial = experiment.trials.latest("pk")
    secrets = (
        "hidden-plan", scene.thread.public_id, experiment.public_id, request.public_id, request.commit[:8],
        "a secret", scene.session.public_id, "Widen the model",
        trial.public_id, request.candidate.idea.hypothesis, experiment.lesson.text,
    )  # fmt: skip
    query = {"q": "alpha", "e": experiment.public_id, "project": "hidden", "technique": "alpha", "all": "1"}
    for each in patterns():
        if not each.pattern.converters and each.name not in PERSONAL:
            url = scene.address(each)
            for reply, known in ((client.get(url), ()), (client.get(url, query), query.values())):
                found = [secret for secret in secrets if secret in reply.content.decode() and secret not in known]
                assert not found, f"{url} tells {name} of {found}"
    reply = client.get("/series/", {"trial": trial.public_id})
    gone = client.get("/series/", {"trial": "zzzzzzzzzz"})
    assert reply.status_code == gone.status_code == 404
    assert reply.content.decode().replace(trial.public_id, "") == gone.content.decode().replace("zzzzzzzzzz", "")


NOT_HERE = ("trial-log", "kernels")  # no trial has a log; a project of one problem has no board


def test_a_viewer_sees_every_page_of_the_project(scene: Scene) -> None:
    client = scene.client("viewer")
    for each in of_projects():
        status = client.get(scene.address(each)).status_code
        assert status in (200, 405) or each.name in NOT_HERE, f"{each.name}: {status}"


def test_what_is_the_labs_is_for_admins_of_the_lab(scene: Scene) -> None:
    for name in ("viewer", "reviewer", "admin", "olga", "outsider"):
        for page in ("audit", "lab-members"):
            assert scene.client(name).get(reverse(page)).status_code == 403
    assert [scene.client("lab").get(reverse(page)).status_code for page in ("audit", "lab-members")] == [200, 200]
    assert (
        scene.client("admin").post(reverse("lab-members"), {"act": "give", "user": "admin", "role": 4}).status_code
        == 403
    )


# Who may act, and that it is written down


@dataclass(frozen=True)
class Act:
    route: str
    role: Role  # that is needed
    action: str  # in the audit
    send: dict[str, Any]
    of: str = ""  # the request, instead of the scene's first of all

    def data(self, scene: Scene) -> dict[str, Any]:
        commit = scene.requests[self.of].commit if self.of else ""
        return {name: value if value != "COMMIT" else commit for name, value in self.send.items()}

    def url(self, scene: Scene) -> str:
        (pattern,) = (each for each in patterns() if each.name == self.route)
        if self.of:
            return reverse(self.route, args=[scene.requests[self.of].public_id])
        return scene.address(pattern)


# In the order in which they are played, in one project: each has to be possible after those above it.
ACTS = (
    Act("project-state", Role.MEMBER, "pause", {"action": "pause"}),
    Act("project-state", Role.MEMBER, "resume", {"action": "resume"}),
    Act("project-state", Role.MEMBER, "budget", {"action": "budget", "max_trials": "9000"}),
    Act("add-thread", Role.MEMBER, "add thread", {"researcher": "catalogue"}),
    Act("thread-state", Role.MEMBER, "pause", {"act": "pause"}),
    Act("thread-state", Role.MEMBER, "resume", {"act": "resume"}),
    Act("steer", Role.MEMBER, "steer", {"focus": "alpha", "note": "please"}),
    Act("criteria", Role.MEMBER, "criteria", {"experiments_without_gain": "900", "max_trials": "9000"}),
    Act("device-price", Role.MEMBER, "device price", {"device_price": "2"}),
    Act("ask", Role.MEMBER, "say", {"act": "say", "text": "look at the schedule"}),
    Act("ask", Role.MEMBER, "ask to try", {"act": "try", "text": "alpha"}),
    Act("more-seeds", Role.MEMBER, "more seeds", {"pairs": "2"}),
    Act("stop-experiment", Role.MEMBER, "stop an experiment", {"reason": "known already"}),
    Act("lesson", Role.MEMBER, "retract a lesson", {"act": "retract"}),
    Act("lesson", Role.MEMBER, "restore a lesson", {"act": "restore"}),
    Act("replay", Role.MEMBER, "replay", {"model": "small"}),
    Act("change-prompt", Role.MEMBER, "prompt", {"text": f"{load('propose').text}\nBe bold.", "base": "0"}),
    Act("comments", Role.MEMBER, "comment", {"text": "why this one?"}),
    Act("comment", Role.MEMBER, "reply", {"act": "reply", "text": "because"}),
    Act("comment", Role.MEMBER, "resolve a comment", {"act": "resolve"}),
    Act("comment", Role.MEMBER, "reopen a comment", {"act": "reopen"}),
    Act("finding", Role.REVIEWER, "override a finding", {"act": "override", "reason": "seen"}),
    Act("finding", Role.REVIEWER, "reinstate a finding", {"act": "reinstate", "reason": "again"}),
    Act("finding", Role.REVIEWER, "override a finding", {"act": "override", "reason": "seen"}),
    Act("propose-technique", Role.MEMBER, "propose a technique", {
        "name": "large_omega", "title": "large OMEGA", "family": "train", "hypothesis": "It lowers the loss.",
    }),
    Act("decide-technique", Role.REVIEWER, "return a technique", {"act": "return", "reason": "which range?"}),
    Act("decide", Role.MEMBER, "more seeds", {"act": "more", "pairs": "2"}, "beta"),
    Act("decide", Role.REVIEWER, "merge", {"act": "approve", "commit": "COMMIT"}, "alpha"),
    Act("ablate", Role.MEMBER, "ablate", {"pairs": "2"}),
    Act("decide", Role.REVIEWER, "reject", {"act": "reject", "note": "no"}, "gamma"),
    Act("decide", Role.REVIEWER, "request changes", {"act": "return", "note": "smaller"}, "beta"),
    Act("decide", Role.REVIEWER, "roll back", {"act": "rollback", "note": "no"}, "alpha"),
    Act("agents", Role.MEMBER, "make a token", {"act": "make", "name": "coder", "may": "propose", "days": "7"}),
    Act("members", Role.ADMIN, "member", {"act": "give", "user": "outsider", "role": "1"}),
    Act("members", Role.ADMIN, "sign-in link", {"act": "invite", "user": "nemo", "role": "1"}),
    Act("members", Role.ADMIN, "single person", {"act": "single", "on": "on"}),
    Act("lab-members", Role.ADMIN, "member", {"act": "give", "user": "olga", "role": "1"}),
    Act("override-machine", Role.ADMIN, "override isolation", {"allowed": "yes"}),
    Act("new-project", Role.MEMBER, "start", {
        "benchmark": "toy", "preset": "quick", "start": "plain", "researcher": "catalogue", "threads": "1",
        "name": "another",
    }),
)  # fmt: skip
LABS = {"lab-members", "override-machine", "new-project"}  # acts on no project: a role in all of them counts


def test_each_act_asks_for_its_role_and_is_written_down(scene: Scene) -> None:
    """Everybody below the role is told so in one line and changes nothing; whoever has it leaves one entry."""
    for act in ACTS:
        here = (act.route, act.send)
        below = [str(role.label) for role in Role if role < act.role and act.route not in LABS]
        for name in below or ["admin"]:
            before = AuditEntry.objects.exclude(action="sign in").count(), Event.objects.head()
            reply = scene.client(name).post(act.url(scene), act.data(scene))
            assert reply.status_code == 403, (here, name)
            assert re.search(r'<h1>Not allowed</h1><p class="muted">[^<]+</p>', reply.content.decode())
            assert (AuditEntry.objects.exclude(action="sign in").count(), Event.objects.head()) == before
        actor = "lab" if act.route in LABS else str(act.role.label)
        newest = AuditEntry.objects.latest("pk").pk
        reply = scene.client(actor).post(act.url(scene), act.data(scene))
        assert reply.status_code in (201, 204, 302), (here, reply.status_code)
        written = AuditEntry.objects.filter(pk__gt=newest, action=act.action, actor=scene.people[actor])
        assert written.exists(), f"{here}: nothing in the audit"
    page = scene.client("viewer").get(reverse("project-audit", args=[scene.project.name])).content.decode()
    for act in ACTS:
        assert act.route in LABS or f"<option >{act.action}</option>" in page, act.action


def test_every_address_that_accepts_a_form_is_played_here(scene: Scene) -> None:
    admin = scene.client("lab")
    accepting = {
        str(each.name)
        for each in patterns()
        if each.name not in OPEN and admin.post(scene.address(each)).status_code not in (200, 405)
    }
    played = {act.route for act in ACTS} | PERSONAL
    assert accepting <= played, f"play {accepting - played} in ACTS: who may, and what the audit says of it"


def test_a_role_that_is_taken_away_counts_for_nothing_at_once(scene: Scene) -> None:
    client, thread = scene.client("member"), reverse("thread", args=[scene.thread.public_id])
    assert client.get(thread).status_code == 200
    Membership.give(scene.people["admin"], scene.people["member"], scene.project, 0)
    assert client.get(thread).status_code == 404
    assert client.post(f"{thread}state/", {"act": "pause"}).status_code == 404
