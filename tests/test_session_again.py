"""A model that repeats itself is refused until what spoke against its idea no longer holds; its prompt says so then."""

from __future__ import annotations

from typing import Any

import pytest

from research.models import Experiment, Idea, Lesson, Message, Project, Thread, Trial
from tests.cast import World, constants, go, store_floor
from tests.horizon_play import Researcher, Told, is_open_again
from tests.llm_play import asked, begin_llm, spec_of, talk
from tests.model_play import ScriptedModel

pytestmark = pytest.mark.django_db
SLOW = "Averaging weights over many steps keeps what a single late step would lose."
LOST = Told("slow averages", "SLOW", "averaging", SLOW)
LIKE = Told("slow averages, once more", "SLOW", "averaging", SLOW.replace("keeps", "retains"))
NEIGHBOUR = Told("a decay that rises", "DECAY", "averaging", "A decay that rises during training suits short runs.")
HARMLESS = Told("other rows", "ROWS", "data", "Rows that begin at any byte show every context alike.")
WARMER = Told("a warmer start", "WARMER", "schedule", "A start at half the rate costs a short run nothing.")


@pytest.fixture
def project(db: None, toy: None) -> Project:
    return begin_llm()


def crashes_alone(trial: Trial) -> str:
    names = {name for name, value in constants(trial.project, trial.commit).items() if value != 1}
    return "crash" if "SLOW" in names and "DECAY" not in names else ""


@pytest.mark.slow
def test_an_idea_is_measured_again_in_the_same_words_only_once_its_assumption_changed(
    thread: Thread, project: Project, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick.attach(3, [])
    store_floor(project, quick)
    world = World(quick, {"SLOW": 0.05, "DECAY": 0.05}, failure=crashes_alone)
    turns = [LOST, LIKE, HARMLESS, LOST, NEIGHBOUR, LOST, WARMER]
    researcher = Researcher(lambda count, newest: turns[count - 1] if count <= len(turns) else LIKE, [LOST])
    with ScriptedModel(script=researcher) as model, asked(monkeypatch, spec := spec_of(model)):
        for _ in range(40):
            go(thread), talk(spec), world.run()
            if thread.ideas.filter(refusal__contains="the head has it").exists():
                break
    first, second = Experiment.objects.filter(candidate__idea__title=LOST.title).order_by("number")
    assert (first.verdict.kind, second.verdict.kind) == ("invalid", "improved")
    lesson = first.lesson
    assert lesson.reopened and lesson.reopened < second.created
    assert "“a decay that rises” is in the code now" in lesson.reopened_why
    assert NEIGHBOUR.title in [idea.name for idea in Idea.objects.filter(candidate__commit=second.baseline_commit)]
    shown = Message.objects.filter(session__idea=second.candidate.idea, session__purpose="propose", role="user")  # type: ignore[union-attr]
    assert is_open_again(shown.get().content, LOST), "its prompt had told it"
    assert (lesson.superseded_by, lesson.superseded_why) == (second.lesson, Lesson.Superseded.CONTRARY)
    refused = list(Idea.objects.filter(state=Idea.State.REFUSED).order_by("number"))
    assert [(idea.title, idea.pointer) for idea in refused[:3]] == [
        (LIKE.title, first), (LOST.title, first), (LOST.title, first),
    ]  # fmt: skip
    assert (refused[-1].title, refused[-1].pointer) == (LIKE.title, second)
