"""Sizes that are not listed are drawn near the listed ones. That a solution meets them: test_kernel_trial.py."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from benchmarks.kernels.formats.loader import OWN, load_problem
from benchmarks.kernels.hidden import LEAST, MOST, neighbour
from benchmarks.kernels.prepare import SIZES


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
