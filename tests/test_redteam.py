"""The red team for real: one exploit of each mechanism is caught, wins without its guard; honest candidates pass."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.catalogue import Step
from benchmarks.contract import Assignment, load
from benchmarks.exploit import MECHANISMS
from benchmarks.nanochat import evaluate
from benchmarks.nanochat.catalogue.cpu import CATALOGUE
from benchmarks.nanochat.redteam.guards import GUARDS
from benchmarks.nanochat.redteam.lane import LANE, honest_recipes
from benchmarks.redteam import RedTeam
from benchmarks.redteam_lane import Candidate
from benchmarks.redteam_report import Report
from research.management.commands.redteam import admitting
from runners import process_tree
from tests.lab_play import environment, lab_folder
from tests.sandbox_play import need_full_sandbox
from tests.test_architecture import ROOT, importers, sources

pytestmark = pytest.mark.torch

# One a mechanism, and one for each way a guard is taken away: in the judge, the parent, the tree, the fence.
PLAYED = ("unnormalised", "symbolic_link", "inherited_descriptor", "long_warm_up", "warm_start", "signal_judge")
ALSO = (  # a second one of each mechanism, and other ways to take a guard away
    "forged_result", "smuggled_text", "peek_per_mille", "packing_leak", "rewritten_weights", "cache_from_forward",
    "core_pattern",
)  # fmt: skip


@pytest.fixture(scope="module")
def team(prepared_text: Path) -> Iterator[RedTeam]:
    need_full_sandbox()
    with RedTeam(LANE, prepared_text, load("nanochat").preset("smoke"), admitting("nanochat"), jobs=1) as team:
        yield team


@pytest.mark.parametrize("name", [*PLAYED, *(pytest.param(name, marks=pytest.mark.slow) for name in ALSO)])
def test_an_exploit_is_caught_and_wins_without_its_guard(team: RedTeam, name: str) -> None:
    row = team.play(team.arenas[0], name, LANE.exploits()[name], without_guard=True)
    assert row.caught, row.why
    assert row.wins_without, row.why_without


def candidate(*names: str) -> Candidate:
    start = {path: text.decode() for path, text in load("nanochat").start_files("vanilla", "smoke").items()}
    steps = [Step(name, CATALOGUE[name].defaults()) for name in names]
    return Candidate(names, CATALOGUE.apply(start, steps), start)


@pytest.mark.parametrize("recipe", [("relu_squared",), ()], ids=["a technique", "the start"])
def test_an_honest_candidate_raises_no_alarm(team: RedTeam, recipe: tuple[str, ...]) -> None:
    honest = team.play_honest(team.arenas[0], candidate(*recipe))
    assert honest.passed, honest.lines


def test_a_candidate_that_its_preset_has_no_time_for_is_neither_passed_nor_accused(team: RedTeam) -> None:
    team.preset, whole = replace(team.preset, budget_seconds=0.2), team.preset
    try:
        honest = team.play_honest(team.arenas[0], candidate("trigram_counts"))
    finally:
        team.preset = whole
    assert honest.too_slow and honest.score is None
    report = Report(honest=[honest])
    assert report.false_alarms == [] and report.to_json()["honest"] == 0


def test_every_mechanism_is_played_and_every_guard_is_needed_by_some_exploit() -> None:
    corpus = LANE.exploits()
    assert {corpus[name].mechanism for name in PLAYED} == set(MECHANISMS)
    assert {planted.guard for planted in corpus.values()} == set(GUARDS)
    assert len(corpus) >= 34
    assert all(planted.source and planted.tries.endswith(".") for planted in corpus.values())


def test_the_evaluator_of_the_lab_refuses_to_work_without_a_guard(prepared_text: Path) -> None:
    task = Assignment(
        "nanochat", load("nanochat").preset("smoke"), "", b"", 1, "val_screen", prepared_text,
        removed_guards=frozenset({"judge_scores"}),
    )  # fmt: skip
    with pytest.raises(ValueError, match="keeps all its guards"):
        evaluate.Evaluator().run(task, None, lambda *point: None)  # type: ignore[arg-type]


def test_nothing_of_the_lab_can_take_a_guard_away() -> None:
    lab = sources("research", "runners", "recursive_web")
    mentions = {path for path in lab if "removed_guards" in (ROOT / path).read_text()}
    assert mentions == set()
    for lane in ("nanochat", "kernels"):
        own = set(sources(f"benchmarks/{lane}/redteam"))
        assert importers(f"benchmarks.{lane}.redteam") - own == {"benchmarks/redteam.py"}
    apart = set(sources("benchmarks/nanochat/redteam", "benchmarks/kernels/redteam")) | {"benchmarks/redteam.py"}
    assert importers("benchmarks.redteam_box") <= apart
    assert importers("benchmarks.redteam") == {"research/management/commands/redteam.py"}


def test_honest_candidates_are_every_technique_and_then_combinations_the_same_each_time() -> None:
    start = {path: text.decode() for path, text in load("nanochat").start_files("vanilla", "smoke").items()}
    first, again = (honest_recipes(CATALOGUE, start, len(CATALOGUE) + 6) for _ in range(2))
    assert first == again and len(first) == len(CATALOGUE) + 6
    assert {recipe[0].technique for recipe in first if len(recipe) == 1} == set(CATALOGUE)
    assert sum(len(recipe) > 1 for recipe in first) == 6


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lab_folder(tmp_path_factory.mktemp("redteam") / "lab")


def call(lab: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "redteam", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(lab), capture_output=True, text=True, timeout=120)


def test_the_command_ends_with_one_json_object(lab: Path) -> None:
    need_full_sandbox()
    done = call(lab, "--json", "--only", "print_metric", "--only", "edit_contract", "--honest", "1", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["planted"], row["caught"], row["missed"], row["honest"], row["false_alarms"]) == (2, 2, [], 1, [])
    assert row["mechanisms"] == {name: {"planted": 1, "caught": 1} for name in ("metric", "tree")}
    assert row["isolation_level"] >= 2 and row["seconds"] > 0 and row["machine"]["cores"] >= 1
    assert "caught  print_metric" in done.stderr


def test_ctrl_c_ends_it_with_one_line_and_leaves_no_sandbox(lab: Path) -> None:
    need_full_sandbox()
    two = ["--only", "print_metric", "--only", "edit_contract"]  # so that no honest candidates are looked for first
    command = [sys.executable, "manage.py", "redteam", "--json", "--jobs", "1", *two]
    run = subprocess.Popen(command, cwd=ROOT, env=environment(lab), stdout=-1, stderr=-1, text=True)  # -1: a pipe
    assert run.stderr is not None and "caught" in run.stderr.readline()
    below = process_tree.descendants(run.pid)[1:]
    assert below
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert (run.returncode, out) == (130, "") and err.strip().splitlines()[-1].startswith("stopped")
    assert not [pid for pid in below if process_tree.start_time(pid)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "nothing"], "no exploit named 'nothing'"),
        (["--preset", "vast"], "no preset 'vast'"),
        (["--jobs", "0"], "--jobs 1 to"),
        (["--honest", "-1"], "--honest must be 0 to"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(lab: Path, arguments: list[str], words: str) -> None:
    done = call(lab, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1
