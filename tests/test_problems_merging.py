"""Many problems: gains of different ones never wait for each other, and nothing is measured twice."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.http import QueryDict

from research.loop import combine
from research.loop.account import tried
from research.loop.advance import advance_project_until_idle
from research.loop.beside import interactions
from research.loop.commit import adopt_commit
from research.loop.memory import recipe_of, view_of
from research.loop.problems import ground_of, is_alike
from research.models import Candidate, Event, Experiment, Idea, MergeRequest, Project, Thread, Verdict
from research.views.graph_board import GraphBoard
from tests.cast import focus, go, repository_of, running, step
from tests.problem_play import Bench

pytestmark = pytest.mark.django_db
State = MergeRequest.State


@pytest.fixture
def thread(many: Project) -> Thread:
    return many.threads.get()


@pytest.fixture
def second(many: Project) -> Thread:
    return Thread.objects.create(project=many, number=2, researcher="catalogue", head=many.start_commit)


def fresh(thread: Thread) -> Thread:
    return Thread.objects.select_related("project").get(pk=thread.pk)


def source(project: Project, commit: str, problem: str) -> str:
    return repository_of(project).files(commit)[f"{problem}/solution.py"].decode()


def test_a_gain_on_another_problem_stands_when_main_moves_and_no_trial_is_repeated(
    thread: Thread, second: Thread, bench: Bench, reviewer: User
) -> None:
    one, other = bench.gain(thread, "layer_norm_tile"), bench.gain(second, "big_gemm_tile")
    focus(thread, "nothing"), focus(second, "nothing")
    assert step(thread) is None, "they have nothing to do with each other: no combination"
    measured, trials = other.commit, Experiment.objects.count()
    one.approve(one.commit, reviewer)
    other.refresh_from_db()
    assert other.state == State.STALE and "brought onto it" in other.reason
    assert step(second) == "settle"
    other.refresh_from_db(), second.refresh_from_db()
    assert (other.state, other.base) == (State.OPEN, one.commit) and other.commit == second.head != measured
    assert "TILE = 2.0" in source(thread.project, other.commit, "layer_norm")
    assert "TILE = 2.0" in source(thread.project, other.commit, "big_gemm")
    assert [step.technique for step in recipe_of(second.project, other.commit)] == ["layer_norm_tile", "big_gemm_tile"]
    assert other.verdict.experiment.candidate_commit == measured, "the evidence is of what was measured"
    assert Candidate.objects.get(commit=other.commit).carried_from == Candidate.objects.get(commit=measured)
    assert Event.objects.filter(text__contains="is open again: nothing of big_gemm changed on main").exists()
    other.approve(other.commit, reviewer)
    go(thread), go(second)
    assert Project.objects.get().champion == other.commit
    assert {fresh(each).head for each in (thread, second)} == {other.commit}
    assert Experiment.objects.exclude(purpose="baseline").count() == trials and not running(second)
    board = GraphBoard(Project.objects.get(), QueryDict(""))
    assert [row.kind for row in board.tried] == ["merged", "merged"], "a change that was carried is one node"
    places = {node.key: node.parents for node in board._nodes()}
    first, carried = (row.key for row in board.tried)
    assert places[f"main-{carried}"] == (f"main-{first}", carried)
    assert [one.outcome for one in tried(second.project)] == ["confirmed", "confirmed"]


def test_a_stack_is_carried_whole_and_again(thread: Thread, second: Thread, bench: Bench, reviewer: User) -> None:
    bench.gain(second, "big_gemm_tile", "big_gemm_fuse")
    stack = list(second.merge_requests.order_by("pk"))
    focus(second, "nothing")
    for name in ("layer_norm_tile", "rms_norm_fuse"):
        request = bench.gain(thread, name)
        focus(thread, "nothing")
        request.approve(request.commit, reviewer)
        go(thread), go(second)
        for part in stack:
            part.refresh_from_db()
        assert [part.state for part in stack] == [State.OPEN] * 2
        assert [part.base for part in stack] == [request.commit, stack[0].commit]
        assert fresh(second).waiting_candidate is None, "what was carried needs no experiment"
    stack[1].approve(stack[1].commit, reviewer)
    champion = Project.objects.get().champion
    assert [step.technique for step in recipe_of(thread.project, champion)] == [
        "layer_norm_tile", "rms_norm_fuse", "big_gemm_tile", "big_gemm_fuse",
    ]  # fmt: skip


def test_a_gain_on_the_same_problem_is_measured_again(
    thread: Thread, second: Thread, bench: Bench, reviewer: User
) -> None:
    one = bench.gain(thread, "big_gemm_tile")
    bench.gain(second, "big_gemm_fuse")
    focus(thread, "nothing"), focus(second, "nothing")
    one.approve(one.commit, reviewer)
    verdict = bench.until_verdict(second)
    assert verdict.experiment.baseline_commit == one.commit and verdict.kind == "improved"
    assert verdict.experiment.problems == ["big_gemm"]
    assert verdict.experiment.candidate and verdict.experiment.candidate.idea.kind == Idea.Kind.COMBINATION


def test_what_stood_on_a_rejected_change_of_another_problem_stands_without_it(
    thread: Thread, bench: Bench, reviewer: User
) -> None:
    bench.gain(thread, "layer_norm_tile", "big_gemm_tile")
    below, above = thread.merge_requests.order_by("pk")
    focus(thread, "nothing")
    below.reject(reviewer, "too clever")
    go(thread)
    above.refresh_from_db()
    assert (above.state, above.base) == (State.OPEN, thread.project.start_commit)
    assert "TILE = 1.0" in source(thread.project, above.commit, "layer_norm")
    assert "TILE = 2.0" in source(thread.project, above.commit, "big_gemm")
    repository = repository_of(thread.project)
    assert not repository.is_ancestor(below.commit, above.commit)
    above.approve(above.commit, reviewer)


def test_what_was_merged_above_a_merge_that_was_rolled_back_needs_no_trial(
    thread: Thread, bench: Bench, reviewer: User
) -> None:
    bench.gain(thread, "layer_norm_tile", "big_gemm_tile")
    below, above = thread.merge_requests.order_by("pk")
    focus(thread, "nothing")
    above.approve(above.commit, reviewer)
    go(thread)
    below.refresh_from_db()
    below.roll_back(reviewer, "it breaks something else")
    go(thread)
    above.refresh_from_db()
    assert (above.state, above.base) == (State.OPEN, thread.project.start_commit) and not running(thread)


def test_heads_that_differ_in_another_problem_are_one_ground(thread: Thread, bench: Bench) -> None:
    start = thread.project.start_commit
    head = bench.gain(thread, "layer_norm_tile").commit
    project = Project.objects.get()
    assert is_alike(project, start, head, ["big_gemm", "rms_norm"]) and not is_alike(
        project, start, head, ["layer_norm"]
    )
    assert ground_of(project, start, ["big_gemm"]) == ground_of(project, head, ["big_gemm"])


def test_the_same_question_is_not_asked_again_on_a_head_that_differs_elsewhere(
    thread: Thread, second: Thread, bench: Bench
) -> None:
    focus(thread, "rms_norm_tile")
    first = bench.until_verdict(thread)
    assert first.kind in ("inconclusive", "no_difference")
    Verdict.objects.filter(pk=first.pk).update(kind="no_difference")
    bench.gain(second, "big_gemm_tile")
    project = fresh(second).project
    mine = [attempt for attempt in view_of(fresh(second), 50).attempts if attempt.steps[0].technique == "rms_norm_tile"]
    assert {attempt.base for attempt in mine} == {second.head}, "as if it had been tried here"
    repository = repository_of(project)
    files = repository.files(second.head)
    files["rms_norm/solution.py"] = repository.files(first.experiment.candidate_commit)["rms_norm/solution.py"]
    commit = repository.commit_files(files, second.head, "again", project.created)
    idea = Idea.add(
        second, 60, kind=Idea.Kind.TECHNIQUE, hypothesis="Again.", expected_effect=0.1, steps=[], fingerprint="a" * 64
    )
    assert adopt_commit(idea, second.head, commit, ()) is None
    assert idea.pointer == first.experiment and "exactly this code was measured" in idea.refusal


def test_near_misses_of_different_problems_are_not_put_together(thread: Thread, second: Thread, bench: Bench) -> None:
    for each, name in ((thread, "rms_norm_fuse"), (second, "small_gemm_tile")):
        focus(each, name)
        verdict = bench.until_verdict(each)
        Verdict.objects.filter(pk=verdict.pk).update(kind="inconclusive", near_miss=True)
        focus(each, "nothing")
    assert not list(combine.pairs_of(fresh(thread)))
    view = view_of(fresh(thread), 9)
    assert not view.meet("rms_norm_fuse", "small_gemm_tile") and view.meet("rms_norm_fuse", "rms_norm_tile")


def test_parts_of_a_combination_are_measured_on_all_that_it_measures(
    thread: Thread, second: Thread, bench: Bench
) -> None:
    bench.gain(thread, "big_gemm_tile")
    bench.gain(second, "layer_norm_tile", "big_gemm_fuse")
    focus(thread, "nothing"), focus(second, "nothing")
    verdict = bench.until_verdict(thread)
    assert verdict.experiment.problems == ["big_gemm", "layer_norm"] and verdict.kind == "improved"
    for _ in range(3):
        advance_project_until_idle(thread.project_id)
        bench.run()
    parts = Experiment.objects.filter(purpose=Experiment.Purpose.PARENT)
    assert [part.problems for part in parts] == [["big_gemm", "layer_norm"]] * 2
    ((_, read),) = interactions(fresh(thread).project)
    assert read.sign == 0, "the gains add up as ratios"
