"""A person steers: labels are checked, the catalogue obeys and says so, what was made ahead gives way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from benchmarks.catalogue import Step
from benchmarks.contract import load
from research.loop import propose
from research.loop.advance import advance_project_until_idle
from research.loop.memory import view_of
from research.models import AuditEntry, Event, Idea, Project, Thread
from research.researchers.base import Directives, LessonView, NothingToPropose
from research.researchers.catalogue import NEAR, CatalogueResearcher, distance, effects
from tests.benchmarks.toy.catalogue import CATALOGUE
from tests.cast import World, go, running, step
from tests.test_catalogue_researcher import attempt, lesson, proposed, view

pytestmark = pytest.mark.django_db
LABELS = {name: frozenset({name, technique.family}) for name, technique in CATALOGUE.items()} | {
    "alpha": frozenset({"alpha", "train", "train.py"}),
    "delta": frozenset({"delta", "model", "model.py"}),
}


def steered(thread: Thread) -> dict[str, object]:
    thread.refresh_from_db()
    return thread.directives


# What may be said


def test_steering_is_kept_with_who_gave_it(thread: Thread, member: User) -> None:
    thread.steer(member, focus=["train", "train"], forbid=["model.py", "beta"], note="the loss spikes")
    assert steered(thread) == {
        "focus": ["train"], "forbid": ["beta", "model.py"], "note": "the loss spikes", "try": [], "fresh": True
    }  # fmt: skip
    assert thread.steered_by == member
    told = Event.objects.get(kind=Event.Kind.STEERED)
    assert told.text == "steered by mia: focus train; forbid beta, model.py (the loss spikes)"
    assert told.actor == member and told.thread == thread
    assert AuditEntry.objects.get().detail["forbid"] == ["beta", "model.py"]
    thread.steer(member, focus=[], forbid=[])
    assert Event.objects.filter(text="steered by mia: everything is allowed").exists()


@pytest.mark.parametrize(
    ("focus", "forbid", "words"),
    [
        (["alfa"], [], "'alfa' is no technique, family or file here; perhaps alpha"),
        ([], ["model.pi"], "perhaps model.py"),
        (["quite another thing"], [], "perhaps cheat, model, model.py, train, train.py"),
        (["alpha"], ["alpha", "train"], "alpha: in focus and forbidden at once; choose one"),
        (["benchmark.toml"], [], "'benchmark.toml' is no"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(
    thread: Thread, member: User, focus: list[str], forbid: list[str], words: str
) -> None:
    before = Event.objects.head()
    with pytest.raises(ValueError, match=words.replace("?", ".")) as raised:
        thread.steer(member, focus, forbid)
    assert "\n" not in str(raised.value)
    assert steered(thread) == {} and Event.objects.head() == before


def test_the_choices_are_families_files_and_techniques(thread: Thread) -> None:
    choices = {(choice.label, choice.kind): choice.count for choice in thread.steering_labels()}
    assert choices[("train", "family")] == 4 and choices[("model.py", "file")] == 1
    assert choices[("train.py", "file")] == 4 and choices[("alpha", "technique")] == 1
    assert ("benchmark.toml", "file") not in choices
    kinds = [choice.kind for choice in thread.steering_labels()]
    assert kinds == sorted(kinds, key=["family", "file", "technique"].index)


def test_files_of_real_techniques_are_found_by_applying_them() -> None:
    described = load("nanochat").describe_techniques("vanilla", "cpu", Path())
    assert {path for about in described.values() for path in about["files"]} == {"model.py", "optim.py", "train.py"}
    assert all(about["files"] and about["title"] for about in described.values())


def test_techniques_are_listed_by_the_control_worker_and_only_when_they_changed(thread: Thread, member: User) -> None:
    Project.objects.update(techniques={})
    thread = Thread.objects.get()
    assert thread.steering_labels() == []
    with pytest.raises(ValueError, match="being listed"):
        thread.steer(member, ["alpha"], [])
    advance_project_until_idle(thread.project_id)
    thread = Thread.objects.get()
    assert "alpha" in {choice.label for choice in thread.steering_labels()}
    stored = Project.objects.get()
    with CaptureQueriesContext(connection) as queries:
        stored.list_techniques()
    assert not queries.captured_queries


# What is obeyed


def test_the_catalogue_obeys_files_in_every_arm() -> None:
    only = Directives(focus=frozenset({"model.py"}))
    assert proposed(view(directives=only, labels=LABELS)) == {("delta",)}
    without = Directives(focus=frozenset({"alpha", "delta"}), forbid=frozenset({"train.py"}))
    assert proposed(view(directives=without, labels=LABELS)) == {("delta",)}
    recipe = (Step("alpha", {"value": 2.0}),)
    head = view(labels=LABELS, recipe=recipe, sources=view().catalogue.apply(view().start_sources, recipe))
    assert proposed(replace(head, directives=Directives(focus=frozenset({"train.py"})))) == {("alpha",)}
    with pytest.raises(NothingToPropose):
        proposed(replace(head, directives=Directives(focus=frozenset({"alpha"}), forbid=frozenset({"train.py"}))))
    near = [lesson(name, 0.01, "near_miss") for name in ("alpha", "delta")]
    tried = [attempt(name, value) for name in ("alpha", "delta") for value in (2.0, 5.0, 8.0)]
    both = view(labels=LABELS, lessons=near, attempts=tried, directives=Directives(focus=frozenset({"alpha", "delta"})))
    assert proposed(both) == {("alpha", "delta")}
    with pytest.raises(NothingToPropose):
        proposed(replace(both, directives=replace(both.directives, forbid=frozenset({"train.py"}))))


def test_the_first_idea_under_new_steering_acknowledges_it_once(thread: Thread, world: World, member: User) -> None:
    thread.steer(member, focus=["beta"], forbid=[])
    step(thread)
    told = Event.objects.get(kind=Event.Kind.OBEYED)
    assert (told.text, told.thread) == ("first idea under the new steering: another BETA", thread)
    assert steered(thread)["focus"] == ["beta"] and "fresh" not in thread.directives
    go(thread)
    assert Event.objects.filter(kind=Event.Kind.OBEYED).count() == 1


def test_an_idea_made_ahead_is_dropped_where_it_violates_the_steering(
    thread: Thread, world: World, member: User
) -> None:
    thread.steer(member, focus=["alpha"], forbid=[])
    step(thread)
    ahead = Idea.objects.get()
    assert ahead.files == ["train.py"] and ahead.title == "another ALPHA"
    thread.steer(member, focus=["train"], forbid=["beta"])
    ahead.refresh_from_db()
    assert ahead.state == Idea.State.PROPOSED, "it fits the new steering too"
    thread.steer(member, focus=[], forbid=["train.py"])
    ahead.refresh_from_db()
    assert (ahead.state, ahead.refusal) == (Idea.State.REFUSED, "steering changed")
    step(thread)
    assert set(thread.ideas.ahead().get().techniques) <= {"delta", "greedy"}


def test_what_is_measured_already_goes_on(thread: Thread, world: World, member: User) -> None:
    thread.steer(member, focus=["alpha"], forbid=[])
    go(thread)
    experiment = running(thread)
    thread.steer(member, focus=[], forbid=["alpha"])
    assert experiment and running(thread) == experiment
    assert world.until_verdict(thread).kind == "improved"


def test_a_finished_thread_goes_on_under_looser_steering(thread: Thread, world: World, member: User) -> None:
    Thread.objects.update(directives={"focus": ["nothing at all"]})
    go(thread)
    thread.refresh_from_db()
    assert thread.state == Thread.State.FINISHED
    thread.steer(member, focus=["alpha"], forbid=[])
    assert thread.state == Thread.State.ACTIVE and go(thread) > 0
    assert running(thread)


def test_steering_leaves_a_paused_thread_paused(thread: Thread, member: User) -> None:
    thread.pause(member)
    thread.steer(member, focus=["alpha"], forbid=[])
    assert thread.state == Thread.State.PAUSED


def test_an_idea_that_was_made_while_somebody_steered_is_not_kept(
    thread: Thread, world: World, member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = CatalogueResearcher.propose

    def slowly(researcher: CatalogueResearcher, shown: object) -> object:
        draft = ask(researcher, shown)  # type: ignore[arg-type]
        if not Thread.objects.get().directives:
            Thread.objects.get().steer(member, focus=["delta"], forbid=[])
        return draft

    monkeypatch.setattr(CatalogueResearcher, "propose", slowly)
    Project.objects.update(seed_key="00" * 32)
    assert propose.step(Thread.objects.get()) and not Idea.objects.exists()
    assert propose.step(Thread.objects.get())
    assert Idea.objects.get().techniques == ["delta"]


# What was sent back, and what a person rejected


def test_what_was_sent_back_comes_first_with_settings_that_were_never_tried() -> None:
    tried = [attempt("delta", 5.0)]
    good = [lesson("delta", -0.2), lesson("alpha", 0.2)]
    sent_back = [(Step("delta", {"value": 2.0}),)]
    again = view(directives=Directives(again=frozenset({"delta"})), attempts=tried, lessons=good, sent_back=sent_back)
    for seed in range(12):
        draft = CatalogueResearcher().propose(replace(again, seed=seed))
        assert draft.steps[0].technique == "delta"
        assert all(abs(float(draft.steps[0].tunables["value"]) - old) >= 0.08 * 7.5 for old in (2.0, 5.0))


def test_what_was_sent_back_is_not_forced_against_the_steering() -> None:
    directives = Directives(again=frozenset({"delta"}), forbid=frozenset({"delta"}))
    assert ("delta",) not in proposed(view(directives=directives))


def test_what_was_sent_back_does_not_come_back_just_so_on_another_head() -> None:
    only = Directives(focus=frozenset({"delta"}))
    sent_back = [(Step("delta", {"value": 2.0}),)]
    best = [lesson("delta", 0.05, base="another head")]
    assert CatalogueResearcher().propose(view(directives=only, lessons=best)).steps == sent_back[0]
    draft = CatalogueResearcher().propose(view(directives=only, lessons=best, sent_back=sent_back))
    assert distance(CATALOGUE["delta"], draft.steps[0], sent_back[0][0]) >= NEAR


def test_a_technique_without_settings_cannot_be_tried_again_and_the_thread_says_so(
    thread: Thread, world: World, reviewer: User
) -> None:
    world.gains["EXTRA"] = 0.05
    request = world.gain(thread, "stubborn")
    Thread.objects.update(directives={})
    request.request_changes(reviewer, "smaller")
    go(thread)
    told = Event.objects.filter(kind=Event.Kind.NOTE).latest("seq")
    assert told.text.startswith("no other settings of stubborn to try; instead: ")
    assert "try" not in steered(thread)


def test_a_dead_end_closes_every_arm() -> None:
    rejected = LessonView("rejected", (Step("alpha", {"value": 2.0}),), "h", (), None, None, 0, "no")
    assert ("alpha",) not in proposed(view(lessons=[rejected]))
    recipe = (Step("alpha", {"value": 2.0}),)
    sources = view().catalogue.apply(view().start_sources, recipe)
    focus = Directives(focus=frozenset({"alpha"}), again=frozenset({"alpha"}))
    with pytest.raises(NothingToPropose):
        proposed(view(lessons=[rejected], recipe=recipe, sources=sources, directives=focus))
    near = [lesson(name, 0.01, "near_miss") for name in ("alpha", "delta")]
    assert ("alpha", "delta") not in proposed(view(lessons=[*near, rejected]))


def test_the_view_shows_dead_ends_and_labels(thread: Thread, world: World, reviewer: User) -> None:
    world.gain(thread, "alpha").reject(reviewer, "no")
    shown = view_of(Thread.objects.get(), 9)
    assert shown.dead_ends == {"alpha"} and shown.labels["delta"] == {"delta", "model", "model.py"}


# One scale for the sampler


def test_retunes_and_first_uses_are_put_on_one_scale() -> None:
    alpha = CATALOGUE["alpha"]
    first = lesson("alpha", 0.04)
    better = lesson(
        "alpha", 0.01, steps=(Step("alpha", {"value": 5.0}),), retune=True, replaced=Step("alpha", {"value": 2.0})
    )
    further = replace(better, effect=-0.02, steps=(Step("alpha", {"value": 8.0}),), replaced=better.steps[0])
    scale = effects(alpha, [first, better, further])
    assert [tunables["value"] for tunables, _ in scale] == [2.0, 5.0, 8.0]
    assert [gain for _, gain in scale] == pytest.approx([0.04, 0.05, 0.03])
    assert effects(alpha, [better])[0][1] == pytest.approx(0.01 + alpha.prior_gain), "before any measurement"
