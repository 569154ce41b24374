"""The HTTP API as agents use it: claim, read, hand in, wait; and all that it turns down."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from research.api import door
from research.loop.submit import MOST_WAITING
from research.models import ApiToken, AuditEntry, Claim, Idea, Machine, NotAllowed, Project, Role, Thread
from tests.agent_play import Agent, change
from tests.cast import World, begin, go, person


@pytest.fixture(autouse=True)
def fresh_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "knocks", door.Knocks())


@pytest.fixture(autouse=True)
def a_machine_that_runs_code_from_outside(world: World) -> None:
    Machine.objects.filter(pk=world.machine.pk).update(isolation_level=3)


@pytest.fixture
def rosa(project: Project) -> User:
    return person("rosa", Role.MEMBER, project)


@pytest.fixture
def agent(project: Project, rosa: User) -> Agent:
    return Agent(ApiToken.make(rosa, "coder", project, may_propose=True))


# The whole way


def test_an_agent_goes_from_claim_to_verdict(agent: Agent, project: Project, world: World) -> None:
    world.gains["ALPHA"] = 0.05
    assert [one["name"] for one in agent.get("projects")] == ["question"]
    assert "## How to take part" in agent.get("projects/question/brief")
    mine = agent.post("projects/question/threads")
    assert (mine["researcher"], mine["claimed_by"]) == ("external", "coder")
    listed = agent.get("projects/question/files", commit=mine["head"])
    assert {"path": "train.py", "editable": True}.items() <= listed["files"][-1].items()
    text = agent.get("projects/question/file", commit=mine["head"], path="train.py")["text"]
    body = change(mine["head"], files={"train.py": text.replace("ALPHA = 1.0", "ALPHA = 2.0")})
    handed = agent.post(f"threads/{mine['id']}/submissions", body)
    assert handed["state"] == "waiting" and handed["again_in_seconds"] > 0
    assert agent.post(f"threads/{mine['id']}/submissions", body)["id"] == handed["id"], "the same key does nothing"
    other = agent.post(f"threads/{mine['id']}/submissions", body | {"hypothesis": "Something else."}, expect=409)
    assert "used for another change" in other["error"]
    thread = Thread.objects.get(public_id=mine["id"])
    verdict = world.until_verdict(thread)
    go(thread)
    over = agent.get(f"submissions/{handed['id']}", wait=1)
    assert over["state"] == "ended" and over["experiment"]["verdict"] == verdict.kind == "improved"
    assert over["experiment"]["effect"] == pytest.approx(0.05, abs=0.01)
    assert "+ALPHA = 2.0" in over["experiment"]["patch"] and over["experiment"]["lesson"]
    assert agent.get(f"threads/{mine['id']}")["head"] == over["commit"], "a gain moves the head"
    [lesson] = agent.get("projects/question/lessons", query="larger ALPHA")
    assert lesson["kind"] == "gain"
    assert agent.get("projects/question/experiments", verdict="improved")[0]["researcher"] == "external"
    assert [one["key"] for one in agent.get("submissions")] == ["one"]
    acts = set(AuditEntry.objects.values_list("who", "action"))
    assert {("rosa", "claim"), ("rosa", "submit"), ("rosa", "add thread")} <= acts


def test_the_owner_of_the_agent_cannot_approve_what_it_found(
    agent: Agent, project: Project, world: World, rosa: User
) -> None:
    world.gains["ALPHA"] = 0.05
    mine = agent.post("projects/question/threads")
    thread = Thread.objects.get(public_id=mine["id"])
    Thread.objects.filter(pk=thread.pk).update(steered_by=None)
    agent.post(f"threads/{mine['id']}/submissions", change(mine["head"]))
    world.until_verdict(thread)
    go(thread)
    request = thread.merge_requests.get()
    project.memberships.filter(user=rosa).update(role=Role.REVIEWER)
    with pytest.raises(NotAllowed, match="an agent of yours works on thread"):
        request.approve(request.commit, rosa)
    other = person("omar", Role.REVIEWER, project)
    request.approve(request.commit, other)


def test_a_change_waits_and_is_rebased_when_the_head_has_moved(agent: Agent, project: Project, world: World) -> None:
    world.gains |= {"ALPHA": 0.05, "DELTA": 0.05}
    mine = agent.post("projects/question/threads")
    path, start = f"threads/{mine['id']}/submissions", mine["head"]
    first = agent.post(path, change(start))
    second = agent.post(path, change(start, key="two", files={"model.py": "DELTA = 2.0\n"}))
    clash = agent.post(path, change(start, key="three", files={"train.py": "ALPHA = 3.0\nGAMMA = 1.0\nBETA = 1.0\n"}))
    thread = Thread.objects.get(public_id=mine["id"])
    world.until_verdict(thread)
    world.until_verdict(thread)
    go(thread)
    states = [agent.get(f"submissions/{one['id']}") for one in (first, second, clash)]
    assert [one["state"] for one in states] == ["ended", "ended", "refused"]
    assert states[1]["experiment"]["baseline"] == states[0]["commit"], "measured on the head that the first has made"
    assert "conflict in train.py" in states[2]["refusal"]


def test_a_diff_is_taken_as_well_as_files(agent: Agent, project: Project) -> None:
    mine = agent.post("projects/question/threads")
    path = f"threads/{mine['id']}/submissions"
    diff = '--- a/model.py\n+++ b/model.py\n@@ -1,3 +1,3 @@\n """The toy\'s model."""\n \n-DELTA = 1.0\n+DELTA = 3.0\n'
    handed = agent.post(path, change(mine["head"], files=None, diff=diff))
    assert handed["state"] == "waiting"
    refused = agent.post(path, change(mine["head"], key="2", files=None, diff=diff.replace("1.0", "7.0")), expect=422)
    assert "does not apply" in refused["error"]
    agent.post(path, change(mine["head"], key="3", files=None, diff=None), expect=422)
    link = "diff --git a/x.py b/x.py\nnew file mode 120000\n--- /dev/null\n+++ b/x.py\n@@ -0,0 +1 @@\n+/etc/passwd\n"
    refused = agent.post(path, change(mine["head"], key="4", files=None, diff=link), expect=422)
    assert "symbolic link" in refused["error"]


# What is turned down


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"../train.py": "A = 1\n"}, "plain path"),
        ({"/etc/passwd": "root"}, "plain path"),
        ({"benchmark.toml": "name = 'x'"}, "protected"),
        ({"notes.md": "hello"}, "outside the editable"),
        ({".git/hooks.py": "x = 1\n"}, "git"),
        ({"train.py": "def broken(:\n"}, "no valid Python"),
        ({"train.py": "A = 1\0\n"}, "not text"),
        ({"train.py": "A = 1\n" * 60_000}, "larger than"),
        ({"train.py": "(" * 50_000}, "no valid Python"),
        ({f"f{at}.py": "" for at in range(21)}, "too many"),
        ({}, "no files"),
    ],
)  # fmt: skip
def test_a_change_that_can_never_be_taken_is_turned_down_at_the_door(
    agent: Agent, project: Project, files: dict[str, str], words: str
) -> None:
    mine = agent.post("projects/question/threads")
    refused = agent.post(f"threads/{mine['id']}/submissions", change(mine["head"], files=files), expect=422)
    assert words in refused["error"]
    assert not Idea.objects.filter(thread__public_id=mine["id"]).exists()


def test_what_was_measured_already_is_pointed_to(agent: Agent, project: Project, world: World) -> None:
    mine = agent.post("projects/question/threads")
    path, thread = f"threads/{mine['id']}/submissions", Thread.objects.get(public_id=mine["id"])
    agent.post(path, change(mine["head"]))
    waits = agent.post(path, change(mine["head"], key="again"), expect=409)
    assert "waits for its turn already" in waits["error"]
    go(thread)
    running = agent.post(path, change(mine["head"], key="again"), expect=409)
    assert "tried in experiment 1" in running["error"] and running["pointer"].startswith("/e/")
    empty = change(
        mine["head"], key="no", files={"train.py": agent.get("projects/question/file", path="train.py")["text"]}
    )
    assert "empty" in agent.post(path, empty, expect=422)["error"]
    assert "no commit of this project" in agent.post(path, change("0" * 40, key="old"), expect=422)["error"]


def test_only_so_many_changes_wait(agent: Agent, project: Project) -> None:
    mine = agent.post("projects/question/threads")
    path = f"threads/{mine['id']}/submissions"
    for at in range(MOST_WAITING):
        agent.post(path, change(mine["head"], key=str(at), files={"train.py": f"ALPHA = {at + 2}.0\n"}))
    full = agent.post(path, change(mine["head"], key="more", files={"train.py": "ALPHA = 99.0\n"}), expect=409)
    assert "wait for their turn" in full["error"]


def test_nothing_is_taken_while_the_project_rests(agent: Agent, project: Project) -> None:
    mine = agent.post("projects/question/threads")
    project.pause("lunch")
    refused = agent.post(f"threads/{mine['id']}/submissions", change(mine["head"]), expect=409)
    assert refused["error"] == "the project is paused: lunch"


# Tokens and claims


def test_two_agents_race_for_a_thread_and_the_silent_one_loses_it(agent: Agent, project: Project, rosa: User) -> None:
    other = Agent(ApiToken.make(rosa, "rival", project, may_propose=True))
    mine = agent.post("projects/question/threads")
    refused = other.post(f"threads/{mine['id']}/claim", expect=409)
    assert "is claimed by coder" in refused["error"]
    other.post(f"threads/{mine['id']}/submissions", change(mine["head"]), expect=409)
    Claim.objects.update(until=timezone.now() - timedelta(seconds=1))
    assert other.post(f"threads/{mine['id']}/claim")["claimed_by"] == "rival"
    assert other.delete(f"threads/{mine['id']}/claim")["claimed_by"] == ""
    assert agent.post(f"threads/{mine['id']}/claim")["claimed_by"] == "coder"
    agent.post(f"threads/{project.threads.first().public_id}/claim", expect=403)  # type: ignore[union-attr]


def test_a_token_opens_no_more_than_it_says(agent: Agent, project: Project, rosa: User) -> None:
    hidden = begin("hidden")
    agent.get("projects/hidden", expect=404)
    agent.get(f"threads/{hidden.threads.get().public_id}", expect=404)
    reading = Agent(ApiToken.make(rosa, "reader", project, may_propose=False))
    assert reading.get("projects/question")["threads"]
    assert "only read" in reading.post("projects/question/threads", expect=403)["error"]
    with pytest.raises(NotAllowed):
        ApiToken.make(rosa, "spy", hidden, may_propose=False)


def test_a_dead_token_opens_nothing(agent: Agent, project: Project, rosa: User) -> None:
    token = ApiToken.objects.get()
    for text in ("", "lab_", "lab_zz_zz", f"lab_{token.public_id}_wrong", "x" * 5_000):
        assert "needs a token" in Agent(text).get("projects", expect=401)["error"]
    assert Client().get("/api/v1/projects").status_code == 401
    agent.get("projects")
    token.refresh_from_db()
    assert token.last_used and token.last_address == "127.0.0.1"
    mine = agent.post("projects/question/threads")
    token.revoke(rosa)
    agent.get("projects", expect=401)
    assert not Claim.objects.filter(thread__public_id=mine["id"]).exists()
    old = Agent(ApiToken.make(rosa, "old", project, may_propose=True, life=timedelta(days=1)))
    ApiToken.objects.filter(name="old").update(expires=timezone.now())
    old.get("projects", expect=401)
    young = Agent(ApiToken.make(rosa, "young", project, may_propose=True))
    User.objects.filter(pk=rosa.pk).update(is_active=False)
    young.get("projects", expect=401)


def test_whoever_lost_the_role_lost_the_tokens_power(agent: Agent, project: Project, rosa: User) -> None:
    project.memberships.filter(user=rosa).update(role=Role.VIEWER)
    assert "no member" in agent.post("projects/question/threads", expect=403)["error"]
    project.memberships.filter(user=rosa).delete()
    agent.get("projects/question", expect=404)


def test_a_token_cannot_ask_in_a_loop(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "knocks", door.Knocks(requests=3))
    for _ in range(3):
        agent.get("projects")
    assert "requests within a minute" in agent.get("projects", expect=429)["error"]


def test_tokens_are_made_listed_and_revoked_from_the_shell(
    project: Project, rosa: User, capsys: pytest.CaptureFixture[str]
) -> None:
    User.objects.create_superuser("root")
    call_command("token", "coder", project="question", owner="rosa")
    text = capsys.readouterr().out.strip()
    assert Agent(text).get("projects")
    call_command("token", list=True)
    line = capsys.readouterr().out
    assert "coder" in line and text.split("_", 2)[2] not in line
    call_command("token", revoke=ApiToken.objects.get().public_id)
    Agent(text).get("projects", expect=401)
    with pytest.raises(CommandError, match="no project"):
        call_command("token", "coder", project="nowhere")


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"x"', '{"key": 1}', "{}", '{"base": []}', "\x00"])
def test_a_body_that_is_no_change_is_told_so(agent: Agent, project: Project, body: str) -> None:
    mine = agent.post("projects/question/threads")
    reply = agent.client.post(
        f"/api/v1/threads/{mine['id']}/submissions", body, content_type="application/json", headers=agent.headers
    )
    assert reply.status_code in (400, 422) and json.loads(reply.content)["error"]


def test_an_address_that_is_not_there_is_told_so(agent: Agent) -> None:
    assert "nothing under" in agent.get("nowhere", expect=404)["error"]
    assert "there is no project" in agent.get("projects/%0A%2AU/files", expect=404)["error"]
    assert agent.client.put("/api/v1/projects", headers=agent.headers).status_code == 405
    assert json.loads(Client().get("/api/v1/openapi.json").content)["openapi"].startswith("3.")


def test_a_body_that_is_too_large_is_told_so(agent: Agent, project: Project) -> None:
    mine = agent.post("projects/question/threads")
    agent.post(f"threads/{mine['id']}/submissions", change(mine["head"], plan="x" * 3_000_000), expect=413)
