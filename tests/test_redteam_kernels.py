"""The red team on the kernel lane: exploits are caught, win without their guard; honest kernels raise no alarm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.contract import Assignment, load
from benchmarks.exploit import MECHANISMS
from benchmarks.kernels import evaluate
from benchmarks.kernels.formats.loader import OWN, load_problem
from benchmarks.kernels.prepare import SIZES, lay_out
from benchmarks.kernels.redteam.guards import GUARDS, JUDGE_GUARDS
from benchmarks.kernels.redteam.lane import PROBLEM, KernelLane
from benchmarks.redteam import RedTeam
from research.management.commands.redteam import admitting
from tests.sandbox_play import need_full_sandbox

pytestmark = pytest.mark.torch

LANE = KernelLane()
PLAYED = ("skipped_rows", "memo_by_content", "input_mutation", "late_thread", "shrunk_file")  # one a mechanism
NOT_ALONE = {"answers_numbered", "reference_apart"}  # others stand behind these guards


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedTeam]:
    need_full_sandbox()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_DATA", str(tmp_path_factory.mktemp("lab")))
        norm = load_problem(OWN / "rms_norm", SIZES["cpu"])
        data = lay_out([(load_problem(PROBLEM), "workload.jsonl"), (norm, SIZES["cpu"])], "redteam")
    with RedTeam(LANE, data, load("kernels").preset("smoke"), admitting("kernels"), jobs=1) as team:
        yield team


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in PLAYED else pytest.mark.slow) for name in LANE.exploits()]
)
def test_an_exploit_is_caught_and_wins_without_its_guard(team: RedTeam, name: str) -> None:
    planted = LANE.exploits()[name]
    row = team.play(team.arenas[0], name, planted, without_guard=True)
    assert row.caught, row.why
    assert row.wins_without is (True if planted.alone else None), row.why_without


def test_references_and_a_kernel_in_cpp_raise_no_alarm(team: RedTeam) -> None:
    candidates = {one.recipe or one.problems: one for one in LANE.honest(team.data, team.preset, 100)}
    for name in (("rms_norm",), ("cpp__rms_norm",)):
        honest = team.play_honest(team.arenas[0], candidates[name])
        assert honest.passed, honest.lines


def test_every_mechanism_is_played_and_every_guard_is_needed_by_some_exploit() -> None:
    corpus = LANE.exploits()
    assert {corpus[name].mechanism for name in PLAYED} == {one.mechanism for one in corpus.values()} < set(MECHANISMS)
    alone = {planted.guard for planted in corpus.values() if planted.alone}
    assert alone == set(GUARDS) - NOT_ALONE and set(GUARDS) > JUDGE_GUARDS
    assert len(corpus) >= 28 and all(planted.tries.endswith(".") for planted in corpus.values())


def test_the_evaluator_of_the_lab_refuses_to_work_without_a_guard(tmp_path: Path) -> None:
    task = Assignment(
        "kernels", load("kernels").preset("smoke"), "", b"", 1, "", tmp_path, removed_guards=frozenset({"compared"})
    )
    with pytest.raises(ValueError, match="keeps all its guards"):
        evaluate.Evaluator().run(task, None, lambda *point: None)  # type: ignore[arg-type]
