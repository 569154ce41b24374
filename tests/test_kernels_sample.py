"""A floor of eight pairs stands for eighteen problems, or 235: which of them it measures."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from benchmarks.kernels.families import family_of
from benchmarks.kernels.formats.workload import Problem
from benchmarks.kernels.prepare import own_problems
from benchmarks.kernels.sample import in_turn, size
from research.loop import noise
from research.models import Experiment, Project
from tests.cast import toy_benchmarks
from tests.kernel_board_play import begin, prepare

PROBLEMS = [problem for problem, _ in own_problems("cpu")]
FAMILIES = {problem.name: family_of(problem.definition) for problem in PROBLEMS}
SIZES = {problem.name: size(problem) for problem in PROBLEMS}


def test_every_beginning_takes_as_many_families_as_it_can() -> None:
    order = in_turn(PROBLEMS)
    assert sorted(order) == sorted(FAMILIES)
    families = len(set(FAMILIES.values()))
    for count in range(1, len(order) + 1):
        assert len({FAMILIES[name] for name in order[:count]}) == min(count, families)


def test_the_first_two_are_the_smallest_and_the_largest_and_eight_leave_no_gap() -> None:
    order = in_turn(PROBLEMS)
    assert SIZES[order[0]] == min(SIZES.values()) and SIZES[order[1]] == max(SIZES.values())
    span = max(SIZES.values()) - min(SIZES.values())
    nearest = [min(abs(SIZES[name] - SIZES[taken]) for taken in order[:8]) for name in order]
    by_name = [min(abs(SIZES[name] - SIZES[taken]) for taken in sorted(SIZES)[:8]) for name in order]
    assert max(nearest) < 0.2 * span < max(by_name), "by name some size has none near it"


def test_the_order_is_of_the_problems_and_not_of_how_they_came() -> None:
    shuffled: Sequence[Problem] = random.Random(3).sample(PROBLEMS, len(PROBLEMS))
    assert in_turn(shuffled) == in_turn(PROBLEMS)
    assert in_turn([]) == []


def test_one_large_family_fills_the_rest() -> None:
    norms = [problem for problem in PROBLEMS if FAMILIES[problem.name] in ("norm", "gemm_epilogue")]
    order = [FAMILIES[name] for name in in_turn(norms)]
    assert sorted(order[:2]) == ["gemm_epilogue", "norm"] and sorted(order[2:]) == ["gemm_epilogue", "norm"]


@pytest.fixture
def kernels(db: None) -> Iterator[Project]:
    with toy_benchmarks():
        prepare(tuple(sorted(FAMILIES)), identity="own")
        yield begin()


def test_the_pairs_of_a_floor_are_of_families_apart(kernels: Project) -> None:
    preset = kernels.preset
    assert kernels.problems == sorted(FAMILIES) and noise.begin(kernels, preset)
    floor = kernels.experiments.get(purpose=Experiment.Purpose.NOISE)
    pairs = dict(floor.trials.values_list("pair", "problems"))
    measured = [name for at in sorted(pairs) for name in pairs[at]]
    assert len(measured) == kernels.sizes.noise_pairs == 6
    assert len({FAMILIES[name] for name in measured}) == 6
    assert {FAMILIES[name] for name in measured} != {FAMILIES[name] for name in kernels.problems[:6]}
    assert not noise.begin(kernels, preset), "the same experiment, asked for again"
