"""What was tried is not tried again, until what spoke against it no longer holds; and two of one change become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from django.contrib.auth.models import User

from benchmarks import edits
from benchmarks.catalogue import Sources, Step
from research.loop.memory import held_discards, view_of
from research.models import Event, Experiment, Idea, Lesson, Project, Thread, Trial, Verdict
from research.researchers import RESEARCHERS
from research.researchers.base import Draft, NothingToPropose, View
from tests.cast import World, focus, go, step

pytestmark = pytest.mark.django_db


@dataclass
class Coder:
    """Writes code of its own: each idea sets constants of the toy, as it was told to."""

    name: str = "coder"
    ships_code: bool = False
    holds_sessions: bool = False
    told: list[tuple[str, str, float, str]] = field(default_factory=list)
    made: dict[str, tuple[str, float]] = field(default_factory=dict)

    def tell(self, words: str, constant: str, value: float = 2.0, tag: str = "shape") -> None:
        self.told.append((words, constant, value, tag))

    def propose(self, view: View) -> Draft:
        if not self.told:
            raise NothingToPropose("nobody told me more")
        words, constant, value, tag = self.told.pop(0)
        name = f"change-{len(self.made)}"
        self.made[name] = constant, value
        return Draft("change", words, 0.02, (Step(name, {}),), (tag,), 8.0, title=words[:40])

    def implement(self, view: View, kind: str, steps: Sequence[Step]) -> tuple[Sources, tuple[Step, ...]]:
        constant, value = self.made[steps[0].technique]
        path = "model.py" if constant == "DELTA" else "train.py"
        return view.sources | {path: edits.constant(view.sources[path], constant, value)}, (*view.recipe, *steps)


@pytest.fixture
def coder(monkeypatch: pytest.MonkeyPatch, thread: Thread, world: World) -> Coder:
    coder = Coder()
    monkeypatch.setitem(RESEARCHERS, "coder", coder)
    Thread.objects.update(researcher="coder")
    world.machine.isolation_level = 3
    world.machine.save()
    return coder


SIGN = "Update by the sign of a slow average of the gradient, as the Lion optimizer does, with decoupled decay"
AGAIN = "Update by the sign of a slow average of gradients as Lion, the optimizer, does; with decoupled decay"
ALPHA = "Initialise every projection at twice the usual scale"


def crash(world: World, constant: str) -> None:
    """Candidates that set a constant crash."""
    from tests.cast import constants

    def failure(trial: Trial) -> str:
        changed = constants(trial.project, trial.commit)[constant] != 1
        return "crash" if changed and trial.arm == "candidate" else ""

    world.failure = failure


def newest(thread: Thread) -> Idea:
    return thread.ideas.latest("number")


def learned(world: World, thread: Thread) -> Lesson:
    world.until_verdict(thread)
    assert step(thread) == "learn"
    return Lesson.objects.latest("pk")


def test_what_nearly_repeats_a_discard_is_refused_with_a_pointer_and_how_alike(
    coder: Coder, world: World, thread: Thread
) -> None:
    crash(world, "BETA")
    coder.tell(SIGN, "BETA")
    lesson = learned(world, thread)
    assert lesson.kind == Lesson.Kind.FAILURE and lesson.assumes and lesson.confidence == 0.9
    coder.tell(AGAIN, "BETA")
    assert step(thread) == "propose"
    idea = newest(thread)
    assert idea.state == Idea.State.REFUSED and idea.pointer == lesson.experiment
    assert "% alike) was discarded" in idea.refusal and "worth another look once" in idea.refusal
    assert Event.objects.filter(kind=Event.Kind.REFUSED).exists()


def test_the_same_code_in_other_words_is_refused_before_device_time(coder: Coder, world: World, thread: Thread) -> None:
    crash(world, "BETA")
    coder.tell(SIGN, "BETA")
    first = learned(world, thread).experiment
    coder.tell("Something quite different that nobody has thought of before", "BETA")
    assert [step(thread), step(thread)] == ["propose", "implement"]
    idea = newest(thread)
    assert idea.state == Idea.State.REFUSED and "exactly this code" in idea.refusal and idea.pointer == first
    assert Experiment.objects.filter(purpose="compare").count() == 1


def test_another_value_is_another_experiment(coder: Coder, world: World, thread: Thread) -> None:
    crash(world, "BETA")
    coder.tell(f"{SIGN}, at 2.0", "BETA")
    learned(world, thread)
    coder.tell(f"{SIGN}, at 3.5", "BETA", 3.5)
    assert [step(thread), step(thread)] == ["propose", "implement"]
    assert newest(thread).state == Idea.State.IMPLEMENTED


def test_a_discard_holds_on_a_later_head_and_opens_again_when_what_it_assumed_changes(
    coder: Coder, world: World, thread: Thread
) -> None:
    crash(world, "BETA")
    coder.tell(SIGN, "BETA", tag="optimizer")
    lesson = learned(world, thread)
    coder.tell(ALPHA, "ALPHA")
    learned(world, thread)
    step(thread)
    thread.refresh_from_db()
    assert thread.head != lesson.base and held_discards(thread.project, thread.head) == [lesson]
    coder.tell(AGAIN, "BETA", tag="optimizer")
    assert step(thread) == "propose"
    assert newest(thread).state == Idea.State.REFUSED and newest(thread).pointer == lesson.experiment
    coder.tell("Average the weights of the last steps", "GAMMA", tag="optimizer")
    learned(world, thread)
    step(thread)
    coder.tell(AGAIN, "BETA", tag="optimizer")
    assert [step(thread), step(thread)] == ["propose", "implement"]
    assert newest(thread).state == Idea.State.IMPLEMENTED
    lesson.refresh_from_db()
    assert lesson.reopened and "is in the code now" in lesson.reopened_why
    told = Event.objects.filter(kind=Event.Kind.LESSON, experiment=lesson.experiment).latest("seq")
    assert told.text.startswith("worth another look, change-3 is in the code now")


def test_a_free_form_dead_end_is_known_again_by_its_words_until_it_is_retracted(
    coder: Coder, world: World, thread: Thread, reviewer: User
) -> None:
    coder.tell(ALPHA, "ALPHA")
    learned(world, thread)
    step(thread)
    request = thread.merge_requests.get()
    request.reject(reviewer, "unreadable")
    Project.objects.update(memory=False)  # a person's word is no memory of the lab's
    coder.tell(f"{ALPHA}!", "GAMMA")
    while newest(thread).number < 2:
        step(thread)
    refused = newest(thread)
    assert refused.state == Idea.State.REFUSED and "dead end" in refused.refusal and "unreadable" in refused.refusal
    assert refused.pointer == request.verdict.experiment
    coder.tell("Nothing like it, in so many other words", "ALPHA")
    while newest(thread).number < 3 or newest(thread).state == Idea.State.PROPOSED:
        step(thread)
    assert newest(thread).state == Idea.State.REFUSED and "dead end (100% alike)" in newest(thread).refusal
    Lesson.objects.get(kind=Lesson.Kind.REJECTED).retract(reviewer)
    coder.tell(f"{ALPHA}!", "GAMMA")
    assert step(thread) == "propose" and newest(thread).state == Idea.State.PROPOSED


def test_the_catalogue_leaves_a_discard_alone_while_it_holds(world: World, thread: Thread) -> None:
    crash(world, "DELTA")
    focus(thread, "delta")
    lesson = learned(world, thread)
    view = view_of(thread, 9)
    assert [steps[0].technique for steps in view.discards] == ["delta"]
    lesson.reopen("of a test")
    assert view_of(thread, 9).discards == []


def test_two_measurements_of_one_change_become_one_lesson_with_both_in_evidence(
    coder: Coder, world: World, thread: Thread
) -> None:
    coder.tell("Depth over width for so small a model", "DELTA")
    first = learned(world, thread)
    assert first.kind == Lesson.Kind.NO_GAIN and first.assumption, "it stopped, and had seen no gain"
    Verdict.objects.update(relative=0.001)  # it looked like a gain: code that did not is not measured again
    Lesson.objects.update(assumption={})
    coder.tell("A deeper model, by the old constant", "DELTA")
    second = learned(world, thread)
    first.refresh_from_db()
    assert first.superseded_by == second and first.superseded_why == Lesson.Superseded.POOLED
    assert second.pairs == 2 and second.confidence == pytest.approx(1 - (8 / 9) ** 2)
    assert list(Lesson.objects.current()) == [second] and list(second.supersedes.all()) == [first]
    assert len(view_of(thread, 9).lessons) == 1, "nothing is counted twice"


def test_without_memory_nothing_is_refused_and_nothing_is_shown(coder: Coder, world: World, thread: Thread) -> None:
    Project.objects.update(memory=False)
    crash(world, "BETA")
    for _ in range(2):
        coder.tell(SIGN, "BETA")
        learned(world, thread)
    assert Experiment.objects.filter(purpose="compare").count() == 2
    assert Idea.objects.filter(state=Idea.State.REFUSED).count() == 0
    thread.refresh_from_db()
    view = view_of(Thread.objects.get(), 9)
    assert list(view.lessons) == [] and list(view.discards) == [] and list(view.attempts) == []
    coder.tell("It changes nothing", "ALPHA", 1.0)
    go(thread)
    assert newest(thread).state == Idea.State.REFUSED and "empty" in newest(thread).refusal, "it cannot be measured"
