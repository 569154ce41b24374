"""A change that is in no catalogue goes from prompt to tools, commit, verdict, head and lesson; by sessions alone."""

from __future__ import annotations

import re
from typing import Any

import pytest

from research.models import Call, Idea, Lesson, Message, Project, Session, Thread
from tests.cast import World, go, repository_of, step, store_floor
from tests.llm_play import (
    IDEA,
    KEY,
    asked,
    begin_llm,
    calls,
    careful,
    purpose_of,
    spec_of,
    talk,
    turns_of,
    until_verdict,
)
from tests.model_play import Answer, ScriptedModel

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(db: None, toy: None) -> Project:
    return begin_llm()


@pytest.fixture
def world(quick: object, project: Project) -> World:
    quick.attach(3, [])  # type: ignore[attr-defined]
    store_floor(project, quick)  # type: ignore[arg-type]
    return World(quick, {"ALPHA": 0.05, "BETA": 0.05, "GAMMA": 0.05})  # type: ignore[arg-type]


def test_a_change_in_no_catalogue_goes_from_prompt_to_head(
    thread: Thread, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedModel(script=careful) as model, asked(monkeypatch, spec := spec_of(model)):
        verdict = until_verdict(world, thread, spec)
    assert verdict.kind == "improved"
    thread.refresh_from_db()
    idea = verdict.experiment.candidate.idea  # type: ignore[union-attr]
    assert thread.head == idea.candidate.commit and idea.kind == Idea.Kind.CHANGE
    assert (idea.title, idea.model, idea.files, idea.trusted) == (IDEA["title"], "scripted", ["train.py"], False)
    assert b"ALPHA = 3.0  # more" in repository_of(thread.project).files(thread.head)["train.py"]
    assert thread.merge_requests.get().commit == thread.head
    assert Lesson.objects.get(experiment=verdict.experiment).techniques == idea.steps
    assert [step["technique"] for step in idea.candidate.recipe] == [f"change-{idea.public_id}"]
    first = Session.objects.order_by("pk").first()
    assert first is not None and (first.state, first.used, first.idea) == (Session.State.ENDED, True, idea)
    assert [message.role for message in first.messages.all()] == ["system", "user", "assistant", "tool"] + [
        "assistant", "tool",
    ]  # fmt: skip
    checked = Message.objects.get(session__purpose="implement", session__idea=idea, name="check")
    assert "it runs" in checked.content and "score" not in checked.content
    call = Call.objects.order_by("pk").first()
    assert call is not None and (call.prompt_tokens, call.completion_tokens) == (1000, 50)
    assert float(call.price or 0) == pytest.approx(0.0011) and call.reserved == 0
    assert all(KEY not in message.content for message in Message.objects.all())


def test_the_next_idea_is_written_while_the_first_is_measured(
    thread: Thread, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["ALPHA", "BETA", "GAMMA"])

    def next_constant(body: dict[str, Any]) -> Answer:
        if purpose_of(body) == "idea":
            name = next(names)
            return calls(finish_idea=IDEA | {"title": name, "hypothesis": f"{name} helps.", "plan": f"only {name}"})
        name = re.findall("Plan: only ([A-Z]+)", str(body["messages"]))[-1]
        edit = {"path": "train.py", "old": f"{name} = 1.0", "new": f"{name} = 3.0"}
        return calls(replace=edit) if turns_of(body) == 0 else calls(finish_change={"summary": name})

    with ScriptedModel(script=next_constant) as model, asked(monkeypatch, spec := spec_of(model)):
        go(thread), talk(spec), go(thread), talk(spec), go(thread)  # the first is measured
        assert thread.experiments.running().exists()
        go(thread), talk(spec), go(thread), talk(spec), go(thread)
        ahead = Session.objects.get(purpose="implement", idea__title="BETA")
        assert ahead.state == Session.State.ENDED and ahead.base == thread.head
        verdict = until_verdict(world, thread, spec)
        assert verdict.kind == "improved" and Thread.objects.get().head != ahead.base
        go(thread)  # git carries the second change onto the head that moved
    second = Idea.objects.get(title="BETA").candidate
    assert second.parent == Thread.objects.get().head != ahead.base
    files = repository_of(thread.project).files(second.commit)
    assert b"ALPHA = 3.0" in files["train.py"] and b"BETA = 3.0" in files["train.py"]
    assert len(second.recipe) == 2


def test_without_a_model_the_thread_halts_with_what_to_do(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    with asked(monkeypatch):
        assert step(thread) is None
    thread.refresh_from_db()
    assert thread.state == Thread.State.HALTED and "LAB_LLM_MODEL" in thread.note
