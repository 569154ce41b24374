"""What people say reaches a model's prompt as a quotation, and its idea answers it."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from research.models import Idea, Message, Project
from tests.cast import World, step, store_floor
from tests.llm_play import IDEA, asked, begin_llm, purpose_of, script, spec_of, talk, until_verdict
from tests.model_play import Answer, ScriptedModel, calls

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(db: None, toy: None) -> Project:
    return begin_llm()


@pytest.fixture
def world(quick: Any, project: Project) -> World:
    quick.attach(3, [])
    store_floor(project, quick)
    return World(quick, {"ALPHA": 0.05})


def as_asked(body: dict[str, Any]) -> Answer:
    return calls(finish_idea={**IDEA, "tags": ["as-asked"]}) if purpose_of(body) == "idea" else script(body)


def test_a_model_is_shown_what_people_said_and_its_idea_answers(
    project: Project, world: World, member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = project.threads.get()
    thread.say(member, "constants first, please")
    thread.try_this(member, "set ALPHA to 3")
    with ScriptedModel(script=as_asked) as model, asked(monkeypatch, spec := spec_of(model)):
        assert until_verdict(world, thread, spec).kind == "improved"
    opening = Message.objects.filter(role="user").order_by("pk").first()
    assert opening is not None and "mia says: constants first, please" in opening.content
    assert "mia asks to try this now: set ALPHA to 3" in opening.content
    thread.refresh_from_db()
    said, wish = thread.directives["say"][0], thread.directives["try_this"][0]
    assert (said["state"], said["idea"], wish["state"], wish["idea"]) == ("acknowledged", 1, "done", 1)


def test_a_model_that_changes_a_forbidden_file_is_refused(
    project: Project, world: World, member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = project.threads.get()
    thread.steer(member, [], ["train.py"])
    with ScriptedModel(script=script) as model, asked(monkeypatch, spec := spec_of(model)):
        step(thread)  # a session that thinks of an idea; then one that writes it
        talk(spec)
        step(thread), step(thread)
        talk(spec)
        step(thread)
    first = Idea.objects.order_by("pk").first()
    assert first is not None and first.refusal == "steering by mia forbids train.py"
