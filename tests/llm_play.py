"""Threads of the researcher llm in tests: a scripted endpoint, its models, and sessions carried on in place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from research.loop import asking, converse
from research.models import Project, Session, Thread, Verdict
from research.researchers.llm.wire import ModelSpec
from tests.cast import ROUNDS, World, begin, step
from tests.model_play import Answer, ScriptedModel, calls

KEY = "sk-planted-1234567890"
IDEA = {
    "title": "a larger ALPHA", "hypothesis": "A larger ALPHA lowers the loss.", "plan": "set ALPHA in train.py to 3.0",
    "expected_effect": 0.04, "tags": ["constants"],
}  # fmt: skip
EDIT = {"path": "train.py", "old": "ALPHA = 1.0", "new": "ALPHA = 3.0  # more"}


def spec_of(model: ScriptedModel, name: str = "scripted", **more: Any) -> ModelSpec:
    fields = {"roles": ("propose", "implement"), "price_in": Decimal(1), "price_out": Decimal(2), "timeout_seconds": 5}
    return ModelSpec(name, f"{name}-1", model.url, "TESTS_MODEL_KEY", **{**fields, **more})


def purpose_of(body: Mapping[str, Any]) -> str:
    """What a request is for: the tool that finishes says it."""
    names = [tool["function"]["name"] for tool in body.get("tools", ())]
    return names[-1].removeprefix("finish_") if names else ""


def turns_of(body: Mapping[str, Any]) -> int:
    return sum(message["role"] == "assistant" for message in body["messages"])


def script(body: dict[str, Any]) -> Answer:
    """A researcher that reads, proposes ALPHA, writes it, and is done."""
    turn = turns_of(body)
    if purpose_of(body) == "idea":
        return calls(read_file={"path": "train.py"}) if turn == 0 else calls(finish_idea=IDEA)
    if purpose_of(body) == "review":
        return calls(finish_review={"advice": "ship", "findings": []})
    return calls(finish_change={"summary": "ALPHA is 3 now"}) if turn else calls(replace=EDIT)


def careful(body: dict[str, Any]) -> Answer:
    """The same, with a short check before it hands in."""
    if purpose_of(body) == "change" and turns_of(body) and _call_of(body) != "check":
        return calls(check={})
    return script(body)


def _call_of(body: Mapping[str, Any]) -> str:
    """The tool that was called last."""
    called = [call for message in body["messages"] for call in message.get("tool_calls", ())]
    return called[-1]["function"]["name"] if called else ""


@contextmanager
def asked(monkeypatch: pytest.MonkeyPatch, *specs: ModelSpec) -> Iterator[None]:
    """These are the configured models."""
    monkeypatch.setenv("TESTS_MODEL_KEY", KEY)
    monkeypatch.setattr(asking, "models", lambda: specs)
    yield


def talk(*specs: ModelSpec, limit: int = 200) -> int:
    """Carry on every session that can go on, as the process does; the number of steps."""
    models, steps = {spec.name: spec for spec in specs}, 0
    for _ in range(limit):
        ready = list(Session.objects.askable().values_list("pk", flat=True))
        taken = sum(converse.converse_until_idle(pk, models) for pk in ready)
        if not taken:
            break
        steps += taken
    return steps


def begin_llm(name: str = "asked", threads: int = 1, **options: Any) -> Project:
    project = begin(name, threads, **options)
    Thread.objects.filter(project=project).update(researcher="llm")
    return project


def until_verdict(world: World, thread: Thread, *specs: ModelSpec) -> Verdict:
    """Advance, talk and measure until the thread has one more verdict."""
    known = Verdict.objects.filter(experiment__thread=thread).count()
    for _ in range(ROUNDS):
        while step(thread) is not None:
            pass
        talk(*specs)
        world.run()
        Session.objects.filter(due__isnull=False).update(due=None)  # what it waits for is there
        fresh = Verdict.objects.filter(experiment__thread=thread).order_by("pk")[known:].first()
        if fresh:
            while step(thread) is not None:
                pass
            return fresh
    thread.refresh_from_db()
    seen = list(Session.objects.values_list("purpose", "state", "note"))
    raise AssertionError(f"no verdict: {thread.state} {thread.note} {seen}")


def text_of(body: Mapping[str, Any]) -> str:
    return json.dumps(body)
