"""One unbroken story: an idea of a model that no catalogue knows becomes a technique that another thread applies.

Every row is made by the lab itself: a scripted model at the HTTP boundary, real git, a machine that leases and finishes
trials, people who act through the pages. What each stage must leave behind is asserted before the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from research.loop.advance import advance_project_until_idle
from research.loop.begin import Budget, begin_project
from research.loop.memory import catalogue_of
from research.models import (
    AuditEntry,
    Call,
    Candidate,
    Event,
    Experiment,
    FoundTechnique,
    Idea,
    Lesson,
    Machine,
    MergeRequest,
    Message,
    NoiseFloor,
    Project,
    Role,
    Session,
    Thread,
)
from research.researchers.llm.wire import ModelSpec
from tests.cast import ROUNDS, World, constants, go, person, repository_of
from tests.llm_play import KEY, asked, purpose_of, spec_of, talk, turns_of
from tests.model_play import Answer, ScriptedModel, calls

pytestmark = pytest.mark.django_db
STEADY: dict[str, Any] = {
    "title": "steady weights", "hypothesis": "Averaging the weights of the last steps lowers the loss.",
    "plan": "Add OMEGA = 2.0 below BETA in train.py.", "expected_effect": 0.04, "tags": ["averaging"],
}  # fmt: skip
OTHER: dict[str, Any] = {
    "title": "more of BETA", "hypothesis": "A larger share for the second moment calms late training.",
    "plan": "Set BETA in train.py to 4.0.", "expected_effect": 0.01, "tags": ["optimizer"],
}  # fmt: skip
LINE = "OMEGA = 2.0  # steps that are averaged"


def researcher(body: dict[str, Any]) -> Answer:
    """Reads before it proposes; then reads, edits, checks and hands in. Its second idea is another one."""
    turn = turns_of(body)
    if purpose_of(body) == "idea":
        second = "steady weights" in str(body["messages"])
        return calls(finish_idea=OTHER if second else STEADY) if turn else calls(read_file={"path": "train.py"})
    if purpose_of(body) == "review":
        return calls(finish_review={"advice": "ship", "findings": []})
    new = "BETA = 4.0" if OTHER["plan"] in str(body["messages"]) else f"BETA = 1.0\n{LINE}"
    steps = (
        calls(read_file={"path": "train.py"}), calls(replace={"path": "train.py", "old": "BETA = 1.0", "new": new}),
        calls(check={}), calls(finish_change={"summary": "as the idea says"}),
    )  # fmt: skip
    return steps[min(turn, 3)]


@dataclass
class Story:
    """The machine, the people, the model, and the thread that is told of."""

    world: World
    spec: ModelSpec
    thread: Thread
    starter: User
    reviewer: User
    second: User
    member: User

    def until(self, thread: Thread, seen: Callable[[], bool]) -> None:
        """What the processes of the lab do in turn, until something is there."""
        for _ in range(ROUNDS):
            advance_project_until_idle(thread.project_id)
            go(thread), talk(self.spec), self.world.run(), go(thread)
            Session.objects.filter(due__isnull=False).update(due=None)  # the seconds that a check takes have passed
            if seen():
                return
        raise AssertionError(f"it never came: {thread.state} {thread.note}")

    def post(self, by: User, page: str, id: str, /, **sent: str) -> int:
        """A person acts on a page; the status."""
        client = Client()
        client.force_login(by)
        return client.post(reverse(page, args=[id]), sent).status_code


@pytest.fixture
def story(toy: None, db: None, reviewer: User, member: User, monkeypatch: pytest.MonkeyPatch) -> Any:
    starter, second = person("stella", Role.ADMIN), person("ruth", Role.REVIEWER)
    machine = Machine.objects.create(name="quick", machine_class="quick cpu, 2 slots", slots=2)
    machine.attach(3, [])
    project = begin("averaging", starter, "llm")
    with ScriptedModel(script=researcher) as model:
        spec = spec_of(model, roles=("propose", "implement", "review"))
        with asked(monkeypatch, spec):
            yield Story(World(machine, {"OMEGA": 0.05}), spec, project.threads.get(), starter, reviewer, second, member)


def begin(name: str, by: User, who: str) -> Project:
    return begin_project(name, "toy", "quick", "plain", [who], Budget(), auto_approve=False, started_by=by)


@pytest.mark.slow
def test_a_change_in_no_catalogue_becomes_a_technique_that_another_thread_applies(story: Story) -> None:
    known = set(catalogue_of(story.thread.project))
    experiment = it_is_proposed_written_and_confirmed(story)
    it_is_merged_by_somebody_who_may(story, experiment)
    row = it_is_asked_to_become_a_technique_and_tried(story, experiment)
    assert set(catalogue_of(story.thread.project)) == known
    a_second_person_takes_it_into_the_catalogue(story, row)
    assert set(catalogue_of(story.thread.project)) == known | {"steady_weights"}
    where_main_has_it_nobody_proposes_it(story)
    another_thread_applies_it(story)
    who_did_what_is_on_record(story)


# From a prompt to the head


def it_is_proposed_written_and_confirmed(story: Story) -> Experiment:
    thread, project = story.thread, story.thread.project
    story.until(thread, lambda: Lesson.objects.filter(thread=thread).exists())
    assert NoiseFloor.objects.get().trials == 2 * project.sizes.noise_pairs, "the floor was measured first"
    idea = thread.ideas.order_by("number")[0]
    assert (idea.kind, idea.title, idea.researcher, idea.model) == ("change", "steady weights", "llm", "scripted")
    assert (idea.expected_effect, idea.tags, idea.files, idea.trusted) == (0.04, ["averaging"], ["train.py"], False)
    its_sessions_are_kept(idea)
    candidate = idea.candidate
    assert f"+{LINE}" in candidate.diff.patch and (candidate.diff.added, candidate.diff.removed) == (1, 0)
    assert candidate.parent == project.start_commit and not candidate.trusted
    assert constants(project, candidate.commit)["OMEGA"] == 2.0
    assert all(f"OMEGA = {2.0}" not in text for text in everything_the_catalogue_writes(project))
    experiment = candidate.experiment
    verdict = experiment.verdict
    assert verdict.kind == "improved" and verdict.relative == pytest.approx(0.05, abs=0.01)
    assert experiment.bar and verdict.e_value >= experiment.bar > 1 and not experiment.findings.exists()
    its_lesson_is_kept(experiment, idea)
    thread.refresh_from_db()
    assert thread.head == candidate.commit and candidate.recipe == idea.steps
    request = thread.merge_requests.get()
    assert (request.state, request.commit, request.base) == ("open", candidate.commit, project.start_commit)
    project.refresh_from_db()
    assert project.champion == project.start_commit, "only a person moves main"
    return experiment


def its_sessions_are_kept(idea: Idea) -> None:
    """Each reply with its tools, tokens and price; the short check ran as a trial that is never compared."""
    propose, implement, review = idea.sessions.order_by("pk")
    assert [row.purpose for row in (propose, implement, review)] == ["propose", "implement", "review"]
    assert {(row.state, row.used) for row in (propose, implement, review)} == {(Session.State.ENDED, True)}
    used = [call["name"] for row in (propose, implement, review) for said in row.messages.all()
            for call in said.tool_calls]  # fmt: skip
    assert used == ["read_file", "finish_idea", "read_file", "replace", "check", "finish_change", "finish_review"]
    check = Experiment.every.get(purpose="check", key__startswith=f"check-{implement.public_id}")
    assert check.trials.get().result.failure == "" and not Experiment.objects.filter(pk=check.pk).exists()
    assert "it runs" in implement.messages.get(role="tool", name="check").content
    paid = Call.objects.filter(session__idea=idea)
    assert paid.count() == 7 and {call.state for call in paid} == {Call.State.ANSWERED}
    assert [float(call.price or 0) for call in paid] == [pytest.approx(0.0011)] * 7
    assert not Message.objects.filter(content__contains=KEY).exists()


def its_lesson_is_kept(experiment: Experiment, idea: Idea) -> None:
    lesson = experiment.lesson
    assert (lesson.kind, lesson.title, lesson.techniques) == ("gain", "steady weights", idea.steps)
    assert lesson.session == idea.sessions.get(purpose="propose") and lesson.confidence > 0.9
    assert lesson.effect == pytest.approx(0.05, abs=0.01) and lesson.pairs >= 4 and lesson.is_free_form
    assert list(Lesson.objects.search("averaging weights")) == [lesson]


def everything_the_catalogue_writes(project: Project) -> list[str]:
    start = {path: text.decode() for path, text in repository_of(project).files(project.start_commit).items()}
    found = catalogue_of(project).values()
    return ["\n".join(technique.apply(dict(start), technique.defaults()).values()) for technique in found]


# Main


def it_is_merged_by_somebody_who_may(story: Story, experiment: Experiment) -> None:
    project, request = story.thread.project, MergeRequest.objects.get()
    sent = {"act": "approve", "commit": request.commit}
    for nobody in (story.starter, story.member):
        story.post(nobody, "decide", request.public_id, **sent)
    story.post(story.reviewer, "decide", request.public_id, act="approve", commit=request.base)
    request.refresh_from_db()
    project.refresh_from_db()
    assert request.state == "open" and project.champion == request.base
    assert story.post(story.reviewer, "decide", request.public_id, **sent) == 302
    request.refresh_from_db()
    project.refresh_from_db()
    assert (request.state, request.decided_by, request.decided_by_policy) == ("merged", story.reviewer, False)
    assert project.champion == request.commit == experiment.candidate_commit
    go(story.thread)
    assert repository_of(project).resolve("main") == request.commit == story.thread.head


# Into the catalogue


def it_is_asked_to_become_a_technique_and_tried(story: Story, experiment: Experiment) -> FoundTechnique:
    said = {"name": "steady_weights", "family": "averaging"} | {name: STEADY[name] for name in ("title", "hypothesis")}
    knob = {"constant": "OMEGA", "low-OMEGA": "1.5", "high-OMEGA": "9"}
    assert story.post(story.reviewer, "propose-technique", experiment.public_id, **said, **knob) == 302
    row = FoundTechnique.objects.get()
    assert (row.state, row.proposed_by, row.fit) == ("proposed", story.reviewer, {})
    assert row.patch == experiment.candidate.diff.patch and "llm (scripted)" in row.source  # type: ignore[union-attr]
    assert row.prior_gain == pytest.approx(0.05, abs=0.01) and row.tunables[0]["name"] == "omega"
    story.post(story.second, "decide-technique", row.public_id, act="approve")
    row.refresh_from_db()
    assert row.state == "proposed", "nobody approves what was not tried"
    advance_project_until_idle(experiment.project_id)
    row.refresh_from_db()
    assert row.fit["start"] == "" and "has what it adds already" in row.fit["champion"]
    assert (row.fit["kept"], row.fit["others"], row.fit["lost"]) == (6, 6, [])
    return row


def a_second_person_takes_it_into_the_catalogue(story: Story, row: FoundTechnique) -> None:
    for nobody in (story.reviewer, story.member, story.starter):  # proposed it; may not; began the project
        story.post(nobody, "decide-technique", row.public_id, act="approve")
        row.refresh_from_db()
        assert row.state == "proposed", nobody
    assert story.post(story.second, "decide-technique", row.public_id, act="approve") == 302
    row.refresh_from_db()
    assert (row.state, row.decided_by) == ("approved", story.second)


def where_main_has_it_nobody_proposes_it(story: Story) -> None:
    project = story.thread.project
    advance_project_until_idle(project.pk)
    assert story.post(story.member, "add-thread", project.name, researcher="catalogue") == 302
    thread = project.threads.get(number=2)
    assert story.post(story.member, "steer", thread.public_id, focus="steady_weights") == 302
    go(thread)
    assert thread.head == project.champion and not thread.ideas.exists()


def another_thread_applies_it(story: Story) -> None:
    """Of another project of the benchmark: in the first, main has the change, and the technique excludes it."""
    project = begin("known by now", story.starter, "catalogue")
    thread = project.threads.get()
    advance_project_until_idle(project.pk)
    assert story.post(story.member, "steer", thread.public_id, focus="steady_weights") == 302
    story.until(thread, lambda: Lesson.objects.filter(thread=thread).exists())
    idea = thread.ideas.order_by("number")[0]
    assert (idea.kind, idea.techniques, idea.tags, idea.researcher) == (
        "technique", ["steady_weights"], ["averaging"], "catalogue",
    )  # fmt: skip
    assert idea.expected_effect == pytest.approx(0.05, abs=0.01), "what was measured is what is expected"
    assert not idea.trusted and not idea.candidate.trusted, "it is code from outside still"
    assert constants(project, idea.candidate.commit)["OMEGA"] == 2.0
    assert idea.candidate.experiment.verdict.kind == "improved"
    thread.refresh_from_db()
    assert thread.head == idea.candidate.commit and thread.merge_requests.get().state == "open"
    assert Lesson.objects.get(thread=thread).names == ["steady_weights"]


# The record


def who_did_what_is_on_record(story: Story) -> None:
    first, other = Project.objects.order_by("pk")
    acts = AuditEntry.objects.exclude(action="sign in").order_by("pk").values_list("who", "action", "project")
    assert list(acts) == [
        ("stella", "start", first.pk), ("rosa", "merge", first.pk), ("rosa", "propose a technique", first.pk),
        ("ruth", "approve a technique", first.pk), ("mia", "add thread", first.pk), ("mia", "steer", first.pk),
        ("stella", "start", other.pk), ("mia", "steer", other.pk),
    ]  # fmt: skip
    assert AuditEntry.objects.first_broken() is None
    told = list(Event.objects.filter(project=first).order_by("seq").values_list("kind", flat=True))
    in_order = ["state", "noise", "session", "idea", "session", "experiment", "trial_started", "trial_ended", "verdict",
                "lesson", "head", "request", "merged", "technique", "note", "technique"]  # fmt: skip
    left = iter(told)
    assert all(kind in left for kind in in_order), told
    assert [told.count(kind) for kind in ("merged", "technique", "halted", "finding")] == [1, 2, 0, 0]
    assert Candidate.objects.filter(project=first, trusted=True).count() == 0
