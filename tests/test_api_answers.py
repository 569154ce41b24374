"""What agents from outside are told: how far a change is, what came of it, why it rests, what to do instead."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from benchmarks import contract
from benchmarks.nanochat import bounds
from research.api import door
from research.api.books import facts_of
from research.api.brief import brief
from research.loop.commit import adopt_commit
from research.models import (
    ApiToken,
    Artifact,
    AuditEntry,
    Candidate,
    Event,
    Lesson,
    Machine,
    Project,
    Result,
    Role,
    Submission,
    Thread,
    Verdict,
)
from tests.agent_play import Agent, change
from tests.cast import World, go, person

MODEL = {"model.py": "DELTA = 2.0\n"}


@pytest.fixture
def agent(project: Project, world: World, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setattr(door, "knocks", door.Knocks())
    Machine.objects.filter(pk=world.machine.pk).update(isolation_level=3)
    return Agent(ApiToken.make(person("rosa", Role.MEMBER, project), "coder", project, may_propose=True))


@pytest.fixture
def mine(agent: Agent) -> Any:
    return agent.post("projects/question/threads")


@pytest.fixture
def thread(mine: Any) -> Thread:
    return Thread.objects.get(public_id=mine["id"])


def hand_in(agent: Agent, mine: Any, expect: int = 200, **more: Any) -> Any:
    return agent.post(f"threads/{mine['id']}/submissions", change(mine["head"], **more), expect)


def test_scores_pairs_and_costs_are_told_while_it_runs_and_after(
    agent: Agent, mine: Any, thread: Thread, world: World, project: Project
) -> None:
    world.gains["ALPHA"] = 0.05
    id = hand_in(agent, mine)["id"]
    go(thread)
    running = agent.get(f"submissions/{id}")
    assert (running["state"], running["note"]) == ("running", "screen: 0 of 1 pairs measured so far")
    world.run(), go(thread), world.run(pairs=1)
    part = agent.get(f"experiments/{running['experiment_id']}")
    assert (part["stage"], part["screening_pairs"], part["confirming_pairs"]) == ("confirm", 1, 1)
    assert (
        part["planned_pairs"] == 4 and part["effect"] is None and part["candidate_score"] == pytest.approx(0.95, 0.01)
    )
    world.until_verdict(thread)
    go(thread)
    over = agent.get(f"submissions/{id}")
    found = over["experiment"]
    assert (found["pairs"], found["screening_pairs"], found["confirming_pairs"], found["planned_pairs"]) == (5, 1, 4, 0)
    assert [pair["counts"] for pair in found["measured"]] == [False] + 4 * [True]
    assert "seed" not in found["measured"][0] and found["baseline_score"] == pytest.approx(1, 0.01)
    gains = [pair["gain"] for pair in found["measured"] if pair["counts"]]
    assert found["confirmed_effect"] == pytest.approx(sum(gains) / 4, 0.01) and "over 4 pairs" in found["reason"]
    assert "over all 5 pairs, screening too): A larger ALPHA lowers the loss. A mean gain" in found["lesson"]
    [listed] = agent.get("submissions")
    assert (listed["verdict"], listed["effect"], listed["experiment"]) == ("improved", found["effect"], None)
    facts = agent.get("projects/question")
    assert facts["costs"] == {"trial": 1, "screened": None, "confirmed": 10, "changes": 10, "lab": {}}
    assert facts["standing"][0]["score"] == pytest.approx(1, 0.01) and facts["spent"]["trials_left"] is None
    forecast = agent.get(f"threads/{mine['id']}/forecasts")
    assert forecast["scored"] == 1 and abs(forecast["bias"]) < 0.02
    assert [(one["expected"], one["outcome"]) for one in forecast["ideas"]] == [(0.05, "confirmed")]
    [merge] = agent.get("projects/question/merges")
    assert (merge["state"], merge["reason"], merge["on_main"]) == ("open", "waits for a reviewer", False)
    thread.merge_requests.get().approve(over["commit"])
    [merge] = agent.get("projects/question/merges")
    assert (merge["state"], merge["decided_by"], merge["on_main"]) == ("merged", "policy", True)


def test_a_lesson_says_no_hypothesis_as_a_fact_that_nothing_bore_out(
    agent: Agent, mine: Any, thread: Thread, world: World
) -> None:
    world.gains["ALPHA"] = -0.05
    hand_in(agent, mine)
    verdict = world.until_verdict(thread)
    go(thread)
    text = Lesson.objects.get().text
    assert text.startswith("Inconclusive (-") and "over 1 pair). 1 pair gave a gain" in text
    assert text.endswith("Hypothesis, not shown: A larger ALPHA lowers the loss.")
    base = change(verdict.experiment.candidate_commit, key="2", files=MODEL)
    refused = agent.post(f"threads/{mine['id']}/submissions", base, expect=422)
    assert "change of experiment 1, inconclusive" in refused["error"] and mine["head"] in refused["do"]


def test_an_invalid_verdict_shows_no_gain_and_its_log_says_what_happened(
    agent: Agent, mine: Any, thread: Thread, world: World, project: Project
) -> None:
    world.gains["ALPHA"] = 0.05
    id = hand_in(agent, mine)["id"]
    go(thread)
    experiment = agent.get(f"submissions/{id}")["experiment_id"]
    early = agent.get(f"experiments/{experiment}/log", expect=404)
    assert early["error"] == "no trial of the candidate has ended yet" and "ask again later" in early["do"]
    world.run(), go(thread)
    silent = agent.get(f"experiments/{experiment}/log", arm="baseline")
    assert (silent["lines"], silent["failure"], silent["stage"]) == ([], "", "screen")
    assert "printed nothing" in silent["note"]
    world.failure = lambda trial: "timeout" if trial.arm == "candidate" else ""
    world.until_verdict(thread)
    go(thread)
    found = agent.get(f"experiments/{experiment}")
    assert (found["verdict"], found["effect"], found["confirmed_effect"]) == ("invalid", None, None)
    assert found["candidate_score"] is None and not any(pair["counts"] for pair in found["measured"])
    assert Verdict.objects.get().relative is None and found["lesson"].startswith(
        "Failed: the trial ended with timeout."
    )
    assert "%" not in found["lesson"] and "Hypothesis, not tested" in found["lesson"]
    assert "- invalid: larger ALPHA" in agent.get("projects/question/brief")
    Result.objects.filter(failure="timeout").update(log=Artifact.store(b"step 1\nstep 2\n"))
    told = agent.get(f"experiments/{experiment}/log")
    assert (told["failure"], told["message"], told["lines"]) == (
        "timeout",
        "the trial ended with timeout",
        ["step 1", "step 2"],
    )
    assert "`arm` is not valid" in agent.get(f"experiments/{experiment}/log", arm="best", expect=422)["error"]
    assert "no points" in agent.get(f"experiments/{experiment}/curve", metric="loss", expect=404)["do"]


def test_a_base_that_the_thread_does_not_stand_on_is_refused_with_what_to_do(
    agent: Agent, mine: Any, thread: Thread, world: World
) -> None:
    world.gains["ALPHA"] = 0.05
    path = f"threads/{mine['id']}/submissions"
    handed = hand_in(agent, mine)
    stacked = change(handed["commit"], key="2", files=MODEL)
    refused = agent.post(path, stacked, expect=422)
    assert (
        "it is a change that waits for its turn" in refused["error"] and "hand in both changes as one" in refused["do"]
    )
    go(thread)
    assert "a change without a verdict yet" in agent.post(path, stacked, expect=422)["error"]
    world.until_verdict(thread)
    go(thread)
    other = agent.post("projects/question/threads")
    gained = agent.get(f"threads/{mine['id']}")["head"]
    refused = agent.post(f"threads/{other['id']}/submissions", change(gained, files=MODEL, key="3"), expect=422)
    assert (
        f"it is the head of {thread}" in refused["error"] and f"hand it in to thread {thread.number}" in refused["do"]
    )
    assert agent.post(path, stacked)["state"] == "waiting", "it is the head now"
    old = change(mine["head"], key="4", files={"model.py": "DELTA = 3.0\n"})
    assert agent.post(path, old)["state"] == "waiting", "the head stands on it"
    Thread.objects.filter(pk=thread.pk).update(head=mine["head"])  # as where a reviewer turned the gain down
    go(thread)
    assert "does not stand on the base" in agent.get("submissions")[1]["refusal"]


def test_what_waits_says_why_and_can_be_withdrawn(
    agent: Agent, mine: Any, thread: Thread, world: World, project: Project
) -> None:
    first, second = hand_in(agent, mine), hand_in(agent, mine, key="2", files=MODEL)
    assert first["note"] == "its turn is about to come"
    go(thread)
    third = hand_in(agent, mine, key="3", files={"model.py": "DELTA = 4.0\n"})
    assert third["note"] == "experiment 1 of its thread is running, and 1 of the thread's changes are before it"
    gone = agent.delete(f"submissions/{second['id']}")
    assert (gone["state"], gone["again_in_seconds"]) == ("cancelled", 0)
    assert gone["refusal"] == "withdrawn by the agent coder of rosa"
    assert agent.delete(f"submissions/{second['id']}")["state"] == "cancelled", "again: nothing more"
    assert AuditEntry.objects.filter(action="withdraw a change").count() == 1
    told = Event.objects.get(kind=Event.Kind.REFUSED, actor__username="rosa")
    assert told.text == "idea 2 was withdrawn by the agent coder of rosa: larger ALPHA"
    assert "the change is running" in agent.delete(f"submissions/{first['id']}", expect=409)["error"]
    assert hand_in(agent, mine, key="again", files=MODEL)["state"] == "waiting", "it may be handed in once more"
    Project.objects.update(max_trials=2)
    world.run(), go(thread)
    rests = agent.get(f"submissions/{third['id']}", wait=30)
    assert (rests["state"], rests["again_in_seconds"]) == ("waiting", 0)
    words = "the project is exhausted: the budget of 2 trials is spent; this rests until a member raises its budget"
    assert rests["note"] == words
    facts, text = agent.get("projects/question"), agent.get("projects/question/brief")
    assert (facts["spent"]["trials_left"], facts["state_reason"]) == (0, "the budget of 2 trials is spent")
    assert "0 of 2 trials are left" in text and "**The project is exhausted**" in text
    ended = agent.get(f"submissions/{first['id']}")
    assert (ended["state"], ended["experiment"]["pairs"]) == ("ended", 1), "it ended at its next look"
    assert agent.delete(f"submissions/{third['id']}")["state"] == "cancelled", "while it rests too"
    Project.objects.update(state="active", max_trials=None)
    thread.pause()
    assert "a member resumes it" in agent.get("submissions")[0]["note"]


def test_what_is_withdrawn_while_its_turn_comes_is_not_measured(agent: Agent, mine: Any, thread: Thread) -> None:
    hand_in(agent, mine)
    found = Submission.objects.select_related("idea", "token").get()
    assert found.withdraw(found.token)
    assert adopt_commit(found.idea, thread.head, found.commit, ()) is None and not Candidate.objects.exists()


def test_errors_name_what_is_missing_with_an_example(agent: Agent, mine: Any) -> None:
    path, good = f"threads/{mine['id']}/submissions", change(mine["head"])
    without = {name: value for name, value in good.items() if name != "hypothesis"}
    told = agent.post(path, without, expect=422)
    assert told["error"] == "`hypothesis` is missing" and "one sentence that can turn out false, such as" in told["do"]
    told = agent.post(path, good | {"expected_effect": "a lot"}, expect=422)
    assert "`expected_effect` is not valid" in told["error"] and "such as 0.02" in told["do"]
    assert agent.post(path, "[]", expect=422)["error"] == "`key` is missing"
    assert "key, base, files" in agent.post(path, "{", expect=400)["do"]
    assert "0 to 60" in agent.get("submissions/zzz", expect=422, wait=61)["do"]
    assert "`metric` is missing" in agent.get("experiments/zzz/curve", expect=422)["error"]
    told = agent.get("projects/question/files", expect=404, commit="HEAD")
    assert "say `main`, `start`" in told["do"]
    assert "list the files" in agent.get("projects/question/file", expect=404, path="no.py")["do"]
    assert "list your submissions" in agent.get("submissions/zzz", expect=404)["do"]


def test_every_parameter_and_field_of_a_change_is_described(client: Client) -> None:
    document = json.loads(client.get("/api/v1/openapi.json").content)
    bare = [
        (path, parameter["name"])
        for path, methods in document["paths"].items()
        for method in methods.values()
        for parameter in method.get("parameters", ())
        if not parameter.get("description") and not parameter["schema"].get("description")
    ]
    assert bare == []
    schemas = document["components"]["schemas"]
    assert all(field.get("description") for field in schemas["Change"]["properties"].values())
    arm = next(p for p in document["paths"]["/api/v1/experiments/{id}/log"]["get"]["parameters"] if p["name"] == "arm")
    assert set(arm["schema"]["enum"]) == {"baseline", "candidate"}


def test_the_brief_tells_of_main_threads_and_rule_in_less_than_two_pages(
    agent: Agent, mine: Any, project: Project
) -> None:
    text = agent.get("projects/question/brief")
    for words in (
        f"`main` is {project.champion[:10]}", "no limit of measuring", "nothing was measured yet", "a reviewer does",
        "claim a free one before", f"`{mine['id']}`", "claimed by coder", "Screen: 1 pair", "never worse",
        "The bar rises", "commit=main", "-X DELETE",
    ):  # fmt: skip
        assert words in text, words
    assert len(text) < 10_000 and len(text.splitlines()) < 110
    Project.objects.update(auto_approve=True)
    assert "the policy of this project does, at once" in agent.get("projects/question/brief")


def test_the_contract_of_the_sandbox_is_read_from_where_it_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "train.bin").write_bytes(b"x" * 1_234)
    nanochat = contract.load("nanochat")
    monkeypatch.setitem(bounds.BOUNDS, "cpu", replace(bounds.BOUNDS["cpu"], forward_wall=77.0))
    text = "\n".join(nanochat.explain(nanochat.preset("cpu"), tmp_path))
    for words in (
        "1,234 bytes", "has 77 s", "`start_clock()`", "`log(step, **values)`", "256 MiB of weights",
        "4,096 MiB of memory", "512 rows, 32 at a time", "above 3.5 s of CPU",
    ):  # fmt: skip
        assert words in text, words
    on_gpu = "\n".join(nanochat.explain(nanochat.preset("gpu-60s"), tmp_path))
    for words in ("become scores [B, T, 8192]", "300 s of warm-up", "above 150 s a reader", "512 rows, 8 at a time"):
        assert words in on_gpu, words


def test_the_brief_holds_no_more_than_two_pages_of_a_full_project(
    agent: Agent, mine: Any, thread: Thread, world: World, project: Project
) -> None:
    for at in range(8):
        hand_in(agent, mine, key=str(at), files={"model.py": f"DELTA = {at + 2}.0\n"}, title=f"{at} " + 79 * "x ")
        world.until_verdict(thread)
        go(thread)
    text = brief(project, facts_of(project))
    assert len(text) < 10_000 and text.count("[experiment") == 6
