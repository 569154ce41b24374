"""What a reviewer can make of a request: a dead end, a second try, more seeds. And how each is taken back."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from research.loop import merge
from research.loop.advance import advance_project_until_idle
from research.models import (
    AuditEntry,
    Event,
    Experiment,
    Idea,
    Lesson,
    MergeRequest,
    NotAllowed,
    NotMergeable,
    Project,
    Thread,
    Trial,
    Verdict,
)
from research.researchers.catalogue import NEAR, distance
from research.validation import stats
from research.validation.rules import Rule
from tests.cast import World, constants, focus, go, running, step, steps_of
from tests.stage import Stage

pytestmark = pytest.mark.django_db
State = MergeRequest.State


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


@pytest.fixture
def second(project: Project) -> Thread:
    return Thread.objects.create(project=project, number=2, researcher="catalogue", head=project.start_commit)


def settle(thread: Thread) -> None:
    """What is due between the thread and main, and nothing new."""
    while merge.step(Thread.objects.select_related("project").get(pk=thread.pk)):
        pass
    thread.refresh_from_db()


def only(thread: Thread, *labels: str) -> None:
    """Focus without dropping what else the thread was told."""
    thread.refresh_from_db()
    Thread.objects.filter(pk=thread.pk).update(directives=thread.directives | {"focus": list(labels)})


def measure(world: World, replicate: Experiment) -> Verdict:
    world.run()
    advance_project_until_idle(replicate.project_id)
    replicate.refresh_from_db()
    return replicate.verdict


# Reject


def test_a_rejection_records_a_dead_end_with_its_reason(thread: Thread, world: World, reviewer: User) -> None:
    request = world.gain(thread, "alpha")
    request.reject(reviewer, "nobody can read it")
    lesson = Lesson.objects.get(kind=Lesson.Kind.REJECTED)
    assert lesson.text == "Rejected by rosa: nobody can read it (another ALPHA)"
    assert (lesson.request, lesson.techniques) == (request, [{"technique": "alpha", "tunables": {"value": 2.0}}])
    entry = AuditEntry.objects.get(action="reject")
    assert (entry.actor, entry.detail["reason"]) == (reviewer, "nobody can read it")


def test_a_dead_end_is_proposed_by_no_thread_until_it_is_retracted(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    world.gain(thread, "alpha").reject(reviewer, "no")
    for each in (thread, second):
        focus(each, "alpha")
        go(each)
        each.refresh_from_db()
        assert each.state == Thread.State.FINISHED and not each.ideas.ahead().exists()
    lesson = Lesson.objects.get(kind=Lesson.Kind.REJECTED)
    lesson.retract(reviewer)
    second.refresh_from_db()
    assert second.state == Thread.State.ACTIVE, "there is something to propose again"
    assert go(second) > 0
    experiment = running(second)
    assert experiment and experiment.candidate and experiment.candidate.idea.techniques == ["alpha"]
    lesson.restore(reviewer)
    assert not Lesson.objects.get(pk=lesson.pk).retracted
    assert list(AuditEntry.objects.values_list("action", flat=True))[1:] == ["retract a lesson", "restore a lesson"]
    assert Event.objects.filter(actor=reviewer, text__startswith="a lesson was retracted by rosa").count() == 1


def test_a_rejected_retune_leaves_the_technique_alone_for_good(thread: Thread, world: World, reviewer: User) -> None:
    first = world.gain(thread, "alpha")
    first.approve(first.commit)
    world.worth["ALPHA"] = lambda value: 0.05 if value == 2 else 0.1
    retune = world.gain(thread, "alpha")
    assert retune.candidate.idea.kind == Idea.Kind.RETUNE
    retune.reject(reviewer, "leave it")
    focus(thread, "alpha")
    go(thread)
    thread.refresh_from_db()
    assert thread.head == first.commit and thread.state == Thread.State.FINISHED


def test_an_idea_made_ahead_is_dropped_with_its_technique(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    request = world.gain(thread, "alpha")
    idea = Idea.add(
        second, 1, kind=Idea.Kind.TECHNIQUE, hypothesis="It helps.", steps=request.candidate.idea.steps,
        expected_effect=0.01, fingerprint="x",
    )  # fmt: skip
    request.reject(reviewer, "no")
    idea.refresh_from_db()
    assert (idea.state, idea.refusal) == (Idea.State.REFUSED, "rejected by rosa: no")


def test_a_finished_thread_leaves_a_head_that_was_rejected(thread: Thread, world: World, reviewer: User) -> None:
    request = world.gain(thread, "alpha")
    thread.finish("nothing left")
    request.reject(reviewer, "no")
    settle(thread)
    assert (thread.head, thread.state) == (request.base, Thread.State.ACTIVE)
    assert not Experiment.objects.filter(candidate__idea__kind=Idea.Kind.COMBINATION).exists()
    assert not thread.ideas.filter(kind=Idea.Kind.COMBINATION).exists(), "there was nothing to combine"


def test_a_dead_end_is_retracted_by_a_reviewer_and_other_lessons_by_a_member(
    thread: Thread, world: World, reviewer: User, member: User
) -> None:
    world.gain(thread, "alpha").reject(reviewer, "no")
    with pytest.raises(NotAllowed, match="only a reviewer"):
        Lesson.objects.get(kind=Lesson.Kind.REJECTED).retract(member)
    gain = Lesson.objects.get(kind=Lesson.Kind.GAIN)
    gain.retract(member), gain.retract(member)
    assert AuditEntry.objects.filter(actor=member).count() == 1


# Request changes


def test_changes_bring_the_technique_back_once_with_other_settings(
    thread: Thread, world: World, reviewer: User
) -> None:
    request = world.gain(thread, "alpha")
    request.request_changes(reviewer, "try a smaller value")
    assert (request.state, request.reason) == (State.RETURNED, "try a smaller value")
    assert not Lesson.objects.filter(kind=Lesson.Kind.REJECTED).exists()
    assert AuditEntry.objects.get(action="request changes").detail["note"] == "try a smaller value"
    settle(thread)
    assert thread.head == request.base
    only(thread, "train")
    go(thread)
    experiment = running(thread)
    assert experiment and experiment.candidate
    idea = experiment.candidate.idea
    assert idea.techniques == ["alpha"] and experiment.baseline_commit == request.base
    technique = thread.project.contract.load_catalogue(thread.project.preset).CATALOGUE["alpha"]
    before, now = steps_of(request.candidate.idea.steps)[0], steps_of(idea.steps)[0]
    assert distance(technique, before, now) >= NEAR
    told = Event.objects.get(kind=Event.Kind.OBEYED)
    assert told.text == "tries again with other settings, as asked: another ALPHA"
    thread.refresh_from_db()
    assert "try" not in thread.directives and thread.directives["focus"] == ["train"]


def test_what_was_tried_again_counts_as_its_own_gain_when_main_moves(
    thread: Thread, second: Thread, world: World, reviewer: User
) -> None:
    world.gain(thread, "alpha").request_changes(reviewer, "smaller")
    assert world.until_verdict(thread).kind == "improved"
    step(thread), step(thread)
    again = thread.merge_requests.open().get()
    other = world.gain(second, "beta")
    other.approve(other.commit)
    again.refresh_from_db()
    assert again.state == State.STALE
    verdict = world.until_verdict(thread)
    candidate = verdict.experiment.candidate
    assert candidate and candidate.idea.kind == Idea.Kind.COMBINATION and verdict.kind == "improved"
    values = constants(thread.project, candidate.commit)
    assert values["BETA"] == 2.0 and values["ALPHA"] not in (1.0, 2.0)


def test_the_second_try_waits_until_the_head_has_stepped_back(thread: Thread, world: World, reviewer: User) -> None:
    request = world.gain(thread, "alpha")
    focus(thread, "beta")
    go(thread)
    assert running(thread) and thread.ideas.ahead().exists()
    request.request_changes(reviewer, "smaller")
    assert not thread.ideas.ahead().exists(), "what was made ahead gives way"
    go(thread)
    assert not thread.ideas.ahead().exists()
    assert world.until_verdict(thread).kind == "improved", "of what ran on it"
    only(thread)
    combined = world.until_verdict(thread).experiment.candidate
    assert combined and combined.idea.kind == Idea.Kind.COMBINATION
    go(thread)
    experiment = running(thread)
    assert experiment and experiment.baseline_commit == combined.commit
    assert experiment.candidate and experiment.candidate.idea.techniques == ["alpha"]
    thread.refresh_from_db()
    assert "try" not in thread.directives


def test_changes_make_what_stacks_on_it_stale(thread: Thread, world: World, reviewer: User) -> None:
    top = world.gain(thread, "alpha", "beta")
    below = thread.merge_requests.earliest("pk")
    below.request_changes(reviewer, "smaller")
    top.refresh_from_db()
    assert (below.state, top.state) == (State.RETURNED, State.STALE)
    candidate = world.until_verdict(thread).experiment.candidate
    assert candidate and constants(thread.project, candidate.commit)["ALPHA"] == 1.0
    assert constants(thread.project, candidate.commit)["BETA"] == 2.0


def test_changes_to_the_upper_request_keep_the_gain_below_it(thread: Thread, world: World, reviewer: User) -> None:
    top = world.gain(thread, "alpha", "beta")
    below = thread.merge_requests.earliest("pk")
    top.request_changes(reviewer, "smaller")
    settle(thread)
    below.refresh_from_db()
    assert thread.head == below.commit and below.state == State.OPEN


# More seeds


def test_more_seeds_are_fresh_pairs_of_the_same_two_commits(thread: Thread, world: World, member: User) -> None:
    request = world.gain(thread, "alpha")
    original = request.verdict.experiment
    replicate = request.more_seeds(member, 6)
    assert (replicate.purpose, replicate.original, replicate.rule) == ("replicate", original, original.rule)
    assert replicate.trials.count() == 12
    assert set(replicate.trials.values_list("stage", "split")) == {("confirm", "val_confirm")}
    commits = {original.baseline_commit, original.candidate_commit}
    assert set(replicate.trials.values_list("commit", flat=True)) == commits
    assert not set(replicate.trials.values_list("seed")) & set(original.trials.values_list("seed"))
    verdict = measure(world, replicate)
    assert (verdict.kind, verdict.pairs) == ("improved", 6)
    assert len(verdict.evidence["pairs"]) == 6
    said = Event.objects.filter(kind=Event.Kind.VERDICT).latest("seq")
    assert said.thread == thread and said.text.startswith("Experiment 1 again, over 6 fresh pairs, improved by ")
    assert AuditEntry.objects.get(actor=member).action == "more seeds"


def test_more_seeds_change_no_verdict_and_merge_nothing(thread: Thread, world: World, member: User) -> None:
    request = world.gain(thread, "alpha")
    before = Verdict.objects.values().get()
    replicate = request.more_seeds(member)
    world.gains["ALPHA"] = -0.05
    assert measure(world, replicate).kind == "worse"
    assert Verdict.objects.values().get(experiment=request.verdict.experiment) == before
    request.refresh_from_db()
    go(thread)
    assert request.state == State.OPEN and MergeRequest.objects.count() == 1
    assert Lesson.objects.count() == 1 and Project.objects.get().champion == request.base


def test_all_pairs_together_are_one_process(thread: Thread, world: World, member: User) -> None:
    request = world.gain(thread, "alpha")
    experiment = request.verdict.experiment
    alone = experiment.pooled()
    assert alone and (alone.pairs, alone.e_value) == (4, request.verdict.e_value)
    assert (alone.low, alone.high) == (request.verdict.low, request.verdict.high)
    measure(world, request.more_seeds(member))
    measure(world, experiment.more_seeds(member, 2))
    pooled = experiment.pooled()
    assert pooled and pooled.pairs == 10 and pooled.e_value > alone.e_value
    pairs = [pair for each in Experiment.objects.order_by("pk") for pair in each.complete_pairs()]
    gains = [pair.baseline - pair.candidate for pair in pairs if pair.stage == "confirm"]
    rule = Rule.from_json(experiment.rule)
    assert (pooled.low, pooled.high) == stats.anytime_interval(gains, rule.level, rule.effects)
    assert pooled.relative == pytest.approx(0.05, abs=0.005)
    assert experiment.replicates.first().pooled() == pooled


def test_what_could_not_tell_is_measured_further(thread: Thread, world: World, member: User) -> None:
    focus(thread, "delta")
    verdict = world.until_verdict(thread)
    assert (verdict.kind, verdict.stage) == ("inconclusive", "screen")
    assert verdict.experiment.pooled() is None, "screening is no evidence"
    assert measure(world, verdict.experiment.more_seeds(member)).kind == "worse"
    pooled = verdict.experiment.pooled()
    assert pooled and pooled.pairs == 4 and pooled.e_against > 20


def test_more_seeds_do_not_hold_up_the_thread(thread: Thread, world: World, member: User) -> None:
    request = world.gain(thread, "alpha")
    request.more_seeds(member)
    focus(thread, "beta")
    go(thread)
    assert running(thread)
    assert world.until_verdict(thread).kind == "improved"


def test_lost_pairs_of_a_replicate_are_made_up_for(thread: Thread, world: World, member: User) -> None:
    request = world.gain(thread, "alpha")
    replicate = request.more_seeds(member)
    lost: list[int] = []

    def once(trial: Trial) -> str:
        if trial.arm == "baseline" and not lost:
            lost.append(trial.pair)
            return "crash"
        return ""

    world.failure = once
    world.run()
    advance_project_until_idle(thread.project_id)
    assert measure(world, replicate).pairs == 4 and replicate.trials.count() == 10


def test_a_replicate_whose_candidate_fails_is_invalid(thread: Thread, world: World, member: User) -> None:
    request = world.gain(thread, "alpha")
    world.failure = lambda trial: "crash" if trial.arm == "candidate" else ""
    assert measure(world, request.more_seeds(member)).kind == "invalid"
    assert request.verdict.experiment.pooled() is None


def test_more_seeds_are_refused_where_they_make_no_sense(thread: Thread, world: World, member: User) -> None:
    request = world.gain(thread, "alpha")
    experiment = request.verdict.experiment
    focus(thread, "beta")
    go(thread)
    under_way = running(thread)
    assert under_way
    with pytest.raises(NotMergeable, match="no verdict yet"):
        under_way.more_seeds(member)
    for pairs in (0, 1, 25):
        with pytest.raises(NotMergeable, match="2 to 24 pairs"):
            request.more_seeds(member, pairs)
    request.more_seeds(member)
    with pytest.raises(NotMergeable, match="being measured already"):
        request.more_seeds(member)
    experiment.replicates.get().cancel()
    thread.project.finish()
    with pytest.raises(NotMergeable, match="finished"):
        Experiment.objects.get(pk=experiment.pk).more_seeds(member)


# What a moved main means for the others


@pytest.mark.parametrize("rest", [Thread.pause, lambda thread: thread.halt("Traceback: it broke")])
def test_requests_of_a_resting_thread_are_stale_as_soon_as_main_moves(
    thread: Thread, second: Thread, world: World, rest: object
) -> None:
    request = world.gain(thread, "alpha")
    other = world.gain(second, "beta")
    rest(second)  # type: ignore[operator]
    request.approve(request.commit)
    other.refresh_from_db()
    assert other.state == State.STALE and "main moved" in other.reason


def test_a_finished_thread_wakes_when_main_moves(thread: Thread, second: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    other = world.gain(second, "beta")
    second.finish("nothing left")
    request.approve(request.commit)
    other.refresh_from_db(), second.refresh_from_db()
    assert (other.state, second.state) == (State.STALE, Thread.State.ACTIVE)
    go(second)
    experiment = running(second)
    assert experiment and experiment.baseline_commit == request.commit
