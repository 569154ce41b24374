"""Sizes that are not listed: drawn near the listed ones, and a solution made for the list alone is found there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from benchmarks.kernels.formats.loader import OWN, load_problem
from benchmarks.kernels.hidden import LEAST, MOST, neighbour
from benchmarks.kernels.prepare import SIZES
from tests.kernel_trials import SCALE, Trials, trials


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in OWN.glob(f"*/{SIZES['cpu']}")), ids=lambda path: path.name
)
def test_a_hidden_size_is_new_near_and_a_multiple_of_what_all_listed_ones_are(folder) -> None:
    problem = load_problem(folder, SIZES["cpu"])
    found = [neighbour(problem, Random(seed)) for seed in range(40)]
    for hidden in filter(None, found):
        base = next(each for each in problem.workloads if hidden.uuid.endswith(each.uuid))
        changed = [name for name in base.axes if hidden.axes[name] != base.axes[name]]
        assert len(changed) == 1
        listed = {each.axes[changed[0]] for each in problem.workloads}
        size = hidden.axes[changed[0]]
        assert size not in listed and size <= max(listed)
        assert LEAST <= size / base.axes[changed[0]] <= MOST
        problem.definition.shapes(hidden.axes)
    assert neighbour(problem, Random(7)) == neighbour(problem, Random(7))
    if not problem.definition.constraints:
        assert sum(one is not None for one in found) > 20


def test_nothing_is_hidden_where_axes_depend_on_each_other_or_have_one_size() -> None:
    problem = load_problem(OWN / "rms_norm", SIZES["cpu"])
    bound = replace(problem, definition=replace(problem.definition, constraints=("rows % 2 == 0",)))
    single = replace(problem, workloads=problem.workloads[:1])
    assert neighbour(bound, Random(1)) is None and neighbour(single, Random(1)) is None


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    with trials(tmp_path_factory.mktemp("hidden") / "data", 8) as lane:
        yield lane


@pytest.mark.torch
def test_a_solution_for_the_listed_sizes_alone_is_found_when_it_is_to_be_confirmed(lane: Trials) -> None:
    listed = "def run(x, gain):\n    return x * gain if tuple(x.shape) in ((40, 64), (64, 33)) else x.clone()\n"
    screened, confirmed = (lane.run({SCALE: listed}, confirming=confirming) for confirming in (False, True))
    assert screened.failure is None and "other_size" not in [seen.kind for seen in screened.observations]
    (found,) = [seen for seen in confirmed.observations if seen.kind == "other_size"]
    assert found.severity == "structural" and "scale_rows/hidden-" in found.evidence[0]
    honest = lane.run({SCALE: "def run(x, gain):\n    return x * gain\n"}, confirming=True)
    assert honest.failure is None and "other_size" not in [seen.kind for seen in honest.observations]
    ends = listed.replace("x.clone()", "exit(3)")
    gone = lane.run({SCALE: ends}, confirming=True)
    assert gone.score is not None and "other_size" in [seen.kind for seen in gone.observations]
