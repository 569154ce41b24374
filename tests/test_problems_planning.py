"""A benchmark of many problems: what each experiment measures is fixed when it is made, and both arms measure it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from research.loop import ablate, check, rival, transfer
from research.loop.advance import advance_project_until_idle
from research.loop.champion import begin_audit, begin_baseline
from research.loop.memory import view_of
from research.loop.problems import differing
from research.loop.room import room_of
from research.models import Ablation, DataUse, Experiment, Idea, Project, Thread
from research.models.trial import CHECK
from research.validation.records import Rule, Scale
from runners.lab import Lab
from tests.cast import begin, focus, go, repository_of, step
from tests.problem_play import NAMES, Bench

pytestmark = pytest.mark.django_db
Purpose = Experiment.Purpose


@pytest.fixture
def thread(many: Project) -> Thread:
    return many.threads.get()


def changed(project: Project, *problems: str, parent: str = "") -> str:
    """A commit in which these problems have another TILE."""
    repository, base = repository_of(project), parent or project.start_commit
    files = repository.files(base)
    for name in problems:
        files[f"{name}/solution.py"] = files[f"{name}/solution.py"].replace(b"TILE = 1.0", b"TILE = 3.0")
    commit = repository.commit_files(files, base, "by hand", project.created)
    repository.keep(f"refs/tests/{commit}", commit)
    return commit


def merged(bench: Bench, thread: Thread, *techniques: str) -> Project:
    """`main` with these on it."""
    request = bench.gain(thread, *techniques)
    request.approve(request.commit)
    go(thread)
    return Project.objects.get(pk=thread.project_id)


def measured(experiment: Experiment) -> list[list[str]]:
    """What each pair measures, in order; both arms must agree."""
    arms: dict[tuple[str, int], list[list[str]]] = {}
    for stage, pair, problems in experiment.trials.order_by("pk").values_list("stage", "pair", "problems"):
        arms.setdefault((stage, pair), []).append(problems)
    assert all(one == other for one, other in arms.values())
    return [problems for problems, _ in arms.values()]


def test_a_project_knows_its_problems_and_compares_ratios(many: Project) -> None:
    assert many.problems == NAMES == ["big_gemm", "layer_norm", "rms_norm", "small_gemm"]
    assert set(repository_of(many).files(many.start_commit)) == {
        "benchmark.toml", *(f"{name}/solution.py" for name in NAMES),
    }  # fmt: skip
    assert Rule.from_json(many.rule).scale is Scale.LOG is Scale.of_unit("x")
    assert Scale.of_unit("tokens/s") is Scale.LINEAR


def test_the_noise_floor_takes_one_problem_after_another(many: Project) -> None:
    advance_project_until_idle(many.pk)
    floor = many.experiments.get(purpose=Purpose.NOISE)
    assert measured(floor) == [[name] for name in (*NAMES, *NAMES[:2])]


def test_a_candidate_is_measured_on_what_it_touches_and_so_are_more_pairs_of_it(
    thread: Thread, bench: Bench, member: User
) -> None:
    focus(thread, "layer_norm_tile")
    verdict = bench.until_verdict(thread)
    experiment = verdict.experiment
    assert verdict.kind == "improved" and verdict.relative is not None and abs(verdict.relative - 0.3) < 0.03
    assert experiment.problems == ["layer_norm"] and set(map(tuple, measured(experiment))) == {("layer_norm",)}
    again = experiment.more_seeds(member, pairs=2)
    assert again.problems == ["layer_norm"] and measured(again) == [["layer_norm"]] * 2


def test_a_machine_is_told_which_problems_to_measure(thread: Thread, bench: Bench) -> None:
    focus(thread, "big_gemm_tile")
    go(thread)
    works = bench.lab.claim()
    assert {work.task.problems for work in works} == {("big_gemm",)} and {work.task.split for work in works} == {""}


def test_a_wrong_problem_fails_the_whole_candidate(thread: Thread, bench: Bench) -> None:
    focus(thread, "small_gemm_fuse")
    verdict = bench.until_verdict(thread)
    assert verdict.kind == "invalid" and "small_gemm is wrong" in verdict.reason


def test_champion_and_start_are_compared_on_all_that_differs(thread: Thread, bench: Bench) -> None:
    project = merged(bench, thread, "layer_norm_tile", "big_gemm_tile")
    assert differing(project, project.start_commit, project.champion) == ["big_gemm", "layer_norm"]
    assert differing(project, project.champion, project.champion) == ["big_gemm"], "the first where none differs"
    begin_baseline(project)
    baseline = project.experiments.get(purpose=Purpose.BASELINE)
    assert measured(baseline) == [["big_gemm"], ["layer_norm"], ["big_gemm"]], "one after another"
    project.audit_every = 1
    begin_audit(project)
    audit = project.experiments.get(purpose=Purpose.AUDIT)
    moved = transfer.ask(project, "apart", 2)
    for experiment in (audit, moved):
        assert experiment.problems == ["big_gemm", "layer_norm"]
        assert set(map(tuple, measured(experiment))) == {("big_gemm", "layer_norm")}


def test_a_champion_without_one_change_is_measured_on_that_ones_problem(thread: Thread, bench: Bench) -> None:
    project = merged(bench, thread, "layer_norm_tile", "big_gemm_tile")
    Ablation.ask(project)
    ablate.step(project)
    parts = project.experiments.filter(purpose=Purpose.ABLATION)
    assert {part.label: part.problems for part in parts} == {
        "the champion without layer_norm_tile": ["layer_norm"],
        "the champion without big_gemm_tile": ["big_gemm"],
    }


def test_a_rival_brings_some_problems_and_is_measured_on_what_differs(
    thread: Thread, bench: Bench, tmp_path: object
) -> None:
    project = merged(bench, thread, "layer_norm_tile")
    own = {"rms_norm/solution.py": b"FUSE = 2.0\n"}
    brought = rival.bring(project, "elsewhere", rival.Tree(own, ()), 2)
    files = repository_of(project).files(brought.candidate_commit)
    assert set(files) == set(repository_of(project).files(project.start_commit))
    assert brought.problems == ["layer_norm", "rms_norm"], "what it does not bring is the start's"


def test_a_check_runs_what_its_change_touches(many: Project) -> None:
    commit = changed(many, "rms_norm", parent=changed(many, "big_gemm"))
    trial = check.begin_check(many, "one", commit).trials.get(stage=CHECK)
    assert (trial.problems, trial.split) == (["rms_norm"], "")


def test_a_change_outside_of_all_problems_is_refused_before_any_device_time(thread: Thread, bench: Bench) -> None:
    from research.loop.commit import adopt_commit

    project = thread.project
    repository = repository_of(project)
    files = repository.files(project.start_commit) | {"notes/solution.py": b"X = 1\n"}
    commit = repository.commit_files(files, project.start_commit, "beside", project.created)
    idea = Idea.add(
        thread, Idea.next_number(thread), kind=Idea.Kind.CHANGE, hypothesis="Notes help.", expected_effect=0.1,
        steps=[], fingerprint="f" * 64,
    )  # fmt: skip
    assert adopt_commit(idea, project.start_commit, commit, ()) is None
    assert idea.refusal == "notes/solution.py: in the folder of no problem, so no trial would measure it"
    with pytest.raises(check.CheckRefused, match="folder of no problem"):
        check.begin_check(project, "none", commit)
    assert not Experiment.every.exists()


def test_without_validation_splits_nothing_is_counted_or_rotated(thread: Thread, bench: Bench) -> None:
    focus(thread, "layer_norm_tile")
    verdict = bench.until_verdict(thread)
    assert set(verdict.experiment.trials.values_list("split", flat=True)) == {""}
    assert verdict.experiment.confirm_split == "" and not DataUse.objects.exists()
    assert thread.project.confirm_parts == ()


def test_a_benchmark_of_one_problem_names_none(
    project: Project, quick: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.lab.close_old_connections", lambda: None)
    advance_project_until_idle(project.pk)
    thread = project.threads.get()
    while step(thread):
        pass
    assert project.problems == [] and {tuple(row) for row in project.trials.values_list("problems", flat=True)} == {()}
    works = Lab("quick", "quick cpu, 2 slots", 2, {}).claim()
    assert works and {work.task.problems for work in works} == {()}
    assert begin("another").problems == []


def test_what_is_left_to_gain_is_known_of_the_code_that_was_measured(bench: Bench, thread: Thread) -> None:
    project = thread.project
    assert room_of(project, project.start_commit) == {}
    after = merged(bench, thread, "big_gemm_tile")
    at_start, now = room_of(after, after.start_commit), room_of(after, after.champion)
    assert at_start["big_gemm"] == pytest.approx(1 - 0.36, abs=0.05)
    assert now["big_gemm"] == pytest.approx(1 - 0.36 / 0.5, abs=0.05)
    others = at_start.keys() - {"big_gemm"}
    assert {name: now.get(name) for name in others} == {name: at_start[name] for name in others}
    assert "rms_norm" not in now
    shown = view_of(Thread.objects.get(pk=thread.pk), 9)
    assert shown.room["big_gemm_fuse"] == now["big_gemm"] and shown.room["rms_norm_tile"] == 1.0
