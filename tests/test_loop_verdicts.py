"""From an idea to a verdict and its lesson, with real rows and real git; results are played by the quick machine."""

from __future__ import annotations

import pytest

from research.models import Experiment, Idea, Lesson, MergeRequest, Project, Thread, Trial, Verdict
from research.validation.records import Rule
from tests.cast import World, begin, constants, focus, go, repository_of, running, step

pytestmark = pytest.mark.django_db


def test_an_idea_becomes_a_candidate_with_a_stored_diff(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    assert [step(thread), step(thread)] == ["propose", "implement"]
    candidate = thread.candidates.get()
    assert candidate.parent == thread.head == thread.project.start_commit
    assert candidate.diff.files == [{"path": "train.py", "added": 1, "removed": 1}]
    assert "-ALPHA = 1.0\n+ALPHA = 2.0\n" in candidate.diff.patch
    assert candidate.idea.state == Idea.State.IMPLEMENTED
    assert repository_of(thread.project).resolve(candidate.ref) == candidate.commit
    assert candidate.recipe == [{"technique": "alpha", "tunables": {"value": 2.0}}]


def test_a_candidate_that_touches_a_protected_file_never_runs(thread: Thread, world: World) -> None:
    focus(thread, "greedy")
    assert [step(thread), step(thread)] == ["propose", "implement"]
    idea = thread.ideas.get()
    assert idea.state == Idea.State.REFUSED and "benchmark.toml" in idea.refusal
    assert not thread.candidates.exists() and not Trial.objects.exists()


def test_rule_seeds_and_order_are_rows_before_anything_runs(thread: Thread, world: World) -> None:
    expected = thread.project.seed(1, "screen", 0)
    focus(thread, "alpha")
    go(thread)
    experiment = running(thread)
    assert experiment and experiment.rule == thread.project.rule
    baseline, candidate = experiment.trials.order_by("pk")
    assert baseline.seed == candidate.seed == expected
    assert (baseline.commit, candidate.commit) == (experiment.baseline_commit, experiment.candidate_commit)
    assert {trial.state for trial in (baseline, candidate)} == {Trial.State.WAITING}


def test_both_arms_share_every_seed_and_swap_cores_from_pair_to_pair(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    verdict = world.until_verdict(thread)
    slots = set()
    seeds = []
    for stage, pair in verdict.experiment.trials.values_list("stage", "pair").distinct():
        arms = {trial.arm: trial for trial in verdict.experiment.trials.filter(stage=stage, pair=pair)}
        assert arms["baseline"].seed == arms["candidate"].seed
        assert arms["baseline"].slot != arms["candidate"].slot
        assert arms["baseline"].slot == pair % 2
        slots.add(arms["baseline"].slot)
        seeds.append(arms["baseline"].seed)
    assert slots == {0, 1} and len(set(seeds)) == len(seeds)


def test_what_screens_does_not_confirm(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    verdict = world.until_verdict(thread)
    splits = dict(verdict.experiment.trials.values_list("stage", "split"))
    assert splits == {"screen": "val_screen", "confirm": "val_confirm"}  # so clear a gain is not extended
    assert verdict.pairs == 4


def test_screening_worse_is_inconclusive_with_a_lesson_and_no_dead_end(thread: Thread, world: World) -> None:
    focus(thread, "delta")
    verdict = world.until_verdict(thread)
    assert (verdict.kind, verdict.stage) == ("inconclusive", "screen")
    assert verdict.experiment.trials.count() == 2
    assert step(thread) == "learn"
    lesson = Lesson.objects.get()
    assert lesson.kind == Lesson.Kind.NO_GAIN and lesson.effect == pytest.approx(-0.05, abs=0.01)
    focus(thread, "model")
    go(thread)
    again = running(thread)
    assert again and again.candidate and again.candidate.idea.steps[0]["technique"] == "delta"


def test_enough_good_pairs_move_the_head_and_open_a_request(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    verdict = world.until_verdict(thread)
    assert verdict.kind == "improved" and verdict.e_value >= verdict.bar
    assert [step(thread), step(thread)] == ["learn", "settle"]
    thread.refresh_from_db()
    request = MergeRequest.objects.get()
    assert thread.head == request.commit == verdict.experiment.candidate_commit
    assert request.base == thread.project.start_commit and request.state == MergeRequest.State.OPEN
    assert Project.objects.get().champion == thread.project.start_commit
    assert Lesson.objects.get().kind == Lesson.Kind.GAIN
    go(thread)
    assert repository_of(thread.project).resolve(thread.branch) == thread.head


def test_a_verdict_freezes_the_evidence_that_made_it(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    verdict = world.until_verdict(thread)
    assert len(verdict.evidence["pairs"]) == 5 and verdict.evidence["noise"]["trials"] == 12
    assert verdict.relative == pytest.approx(0.05, abs=0.005)


def test_a_failing_candidate_is_invalid_and_teaches(thread: Thread, world: World) -> None:
    world.failure = lambda trial: "out_of_memory" if trial.arm == "candidate" else ""
    focus(thread, "alpha")
    verdict = world.until_verdict(thread)
    assert verdict.kind == "invalid"
    assert verdict.experiment.findings.get(severity="structural").kind == "out_of_memory"
    step(thread)
    lesson = Lesson.objects.get()
    assert lesson.kind == Lesson.Kind.FAILURE and lesson.text.startswith("Failed: ")
    assert not MergeRequest.objects.exists()


def test_a_structural_finding_ends_an_experiment_before_its_baseline_is_done(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    go(thread)
    baseline, candidate = Trial.objects.claim_pair(world.machine, "player")
    world.failure = lambda trial: "crash"
    world.finish(candidate)
    go(thread)
    assert Verdict.objects.get().kind == "invalid"
    world.failure = lambda trial: ""
    assert world.finish(baseline), "the result of the other arm is kept"
    assert Verdict.objects.count() == 1


def test_an_integrity_observation_of_the_judge_beats_any_number(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    go(thread)
    for lease in Trial.objects.claim_pair(world.machine, "player"):
        seen = [{"kind": "future_tokens", "severity": "structural", "message": "it looks ahead", "evidence": ["a"]}]
        lease.trial.finish(
            lease, machine=world.machine, score=0.1, observations=seen if lease.trial.arm == "candidate" else [],
            isolation_level=0, machine_class=world.machine.machine_class,
        )  # fmt: skip
    go(thread)
    assert (Verdict.objects.get().kind, Lesson.objects.get().kind) == ("invalid", "invalid")


def test_a_pair_whose_baseline_failed_is_made_up_for(thread: Thread, world: World) -> None:
    lost = []

    def once(trial: Trial) -> str:
        if trial.stage == "confirm" and trial.arm == "baseline" and not lost:
            lost.append(trial.pair)
            return "crash"
        return ""

    world.failure = once
    focus(thread, "alpha")
    verdict = world.until_verdict(thread)
    assert verdict.kind == "improved" and verdict.pairs == 4
    assert verdict.experiment.trials.filter(stage="confirm").count() == 10


def test_a_pair_that_ran_out_of_time_in_both_arms_says_nothing_of_the_candidate(thread: Thread, world: World) -> None:
    world.failure = lambda trial: "timeout" if (trial.stage, trial.pair) == ("screen", 0) else ""
    focus(thread, "alpha")
    verdict = world.until_verdict(thread)
    assert verdict.kind == "improved" and not verdict.experiment.findings.filter(severity="structural").exists()
    assert verdict.experiment.trials.filter(stage="screen").count() == 4


def test_an_experiment_that_machines_keep_losing_is_given_up(thread: Thread, world: World) -> None:
    world.failure = lambda trial: "crash" if trial.arm == "baseline" else ""
    focus(thread, "alpha")
    verdict = world.until_verdict(thread)
    assert verdict.kind == "inconclusive" and "lost to machines" in verdict.reason
    assert verdict.experiment.trials.count() == 8
    assert go(thread) > 0, "the thread goes on"


def test_an_exact_duplicate_is_refused_with_a_pointer(thread: Thread, world: World) -> None:
    world.failure = lambda trial: "crash" if trial.arm == "candidate" else ""
    focus(thread, "stubborn")
    verdict = world.until_verdict(thread)
    first = verdict.experiment.candidate
    assert first
    twin = Thread.objects.create(project=thread.project, number=2, researcher="catalogue", head=thread.head)
    idea = Idea.objects.create(
        thread=twin, number=1, kind=first.idea.kind, researcher="catalogue", hypothesis="the same",
        steps=first.idea.steps, expected_effect=0.01, fingerprint="another",
    )  # fmt: skip
    assert step(twin) == "implement"
    idea.refresh_from_db()
    assert idea.state == Idea.State.REFUSED and idea.pointer == verdict.experiment
    assert f"experiment {verdict.experiment.number}" in idea.refusal


def test_a_change_that_stopped_before_it_could_tell_may_be_repeated(thread: Thread, world: World) -> None:
    focus(thread, "delta")
    first = world.until_verdict(thread).experiment.candidate
    assert first and step(thread) == "learn"
    again = Idea.objects.create(
        thread=thread, number=50, kind=first.idea.kind, researcher="catalogue", hypothesis="the same",
        steps=first.idea.steps, expected_effect=0.01, fingerprint=first.idea.fingerprint,
    )  # fmt: skip
    thread.ideas.filter(state=Idea.State.PROPOSED).exclude(pk=again.pk).delete()
    assert [step(thread), step(thread)] == ["implement", "measure"]
    experiment = running(thread)
    assert experiment and experiment.candidate and experiment.candidate.tree == first.tree
    seeds = set(Trial.objects.values_list("experiment", "seed"))
    assert len({seed for _, seed in seeds}) == 2, "a repetition has fresh seeds"


def test_a_technique_in_the_head_comes_back_with_other_tunables(thread: Thread, world: World) -> None:
    world.gain(thread, "alpha")
    focus(thread, "alpha")
    go(thread)
    experiment = running(thread)
    assert experiment and experiment.candidate and experiment.candidate.idea.kind == Idea.Kind.RETUNE
    assert constants(thread.project, experiment.candidate_commit)["ALPHA"] not in (1.0, 2.0)
    world.run()
    world.until_verdict(thread)
    step(thread)
    lesson = Lesson.objects.latest("pk")
    assert lesson.recipe == ["alpha"], "the base of a retune has the technique already"


def test_projects_do_not_disturb_each_other(world: World, project: Project) -> None:
    other = begin("another question")
    thread = other.threads.get()
    focus(thread, "alpha")
    assert world.until_verdict(thread).kind == "improved"
    assert not Experiment.objects.filter(project=project, purpose="compare").exists()


def test_every_experiment_that_comes_to_confirmation_takes_its_turn_in_the_campaign(
    thread: Thread, world: World
) -> None:
    focus(thread, "alpha")
    first = world.until_verdict(thread)
    step(thread), step(thread)
    focus(thread, "delta")  # ends at screening: it is no hypothesis of the campaign
    assert world.until_verdict(thread).experiment.hypothesis is None
    focus(thread, "beta")
    second = world.until_verdict(thread)
    rule = Rule.from_json(first.experiment.rule)
    assert (first.experiment.hypothesis, first.bar) == (1, rule.campaign_bar(1, 0))
    assert (second.experiment.hypothesis, second.bar) == (2, rule.campaign_bar(2, 1))
    assert second.bar > rule.bar, "asked more than one experiment alone would be"
    assert second.evidence["bar"] == second.bar


def test_a_bar_never_moves_once_it_is_given(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    experiment = world.until_verdict(thread).experiment
    experiment.take_turn(lambda turn, confirmed: 1.0)
    assert (experiment.hypothesis, experiment.bar) == (1, pytest.approx(80.4, abs=0.1))
