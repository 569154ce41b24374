"""Sizes near those that a problem lists, which nobody is told of: a kernel made for the list alone is wrong there.

One variable axis of one workload is changed, in steps that all its listed values are multiples of, and never beyond the
largest of them. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from benchmarks.kernels.formats.axes import Var
from benchmarks.kernels.formats.workload import Problem, Safetensors, Workload

LEAST, MOST = 0.6, 1.3  # of the listed size
FEW = 100


def neighbour(problem: Problem, random: Random) -> Workload | None:
    """None where nothing can be changed: constraints between axes, inputs from files, one size alone."""
    if problem.definition.constraints or _from_files(problem):
        return None
    listed = {name: sorted({each.axes[name] for each in problem.workloads if name in each.axes})
              for name, axis in problem.definition.axes.items() if isinstance(axis, Var)}  # fmt: skip
    places = [(base, name, _near(base.axes[name], values))
              for base in problem.workloads for name, values in sorted(listed.items()) if len(values) > 1]  # fmt: skip
    places = [place for place in places if place[2]]
    if not places:
        return None
    base, name, near = random.choice(places)
    size = random.choice(near)
    return replace(base, uuid=f"hidden-{name}-{size}-{base.uuid}", axes={**base.axes, name: size})


def _near(size: int, listed: Sequence[int]) -> list[int]:
    """Sizes that are not listed; of many, evenly spread ones."""
    step = math.gcd(*listed)
    first, last = math.ceil(LEAST * size / step), math.floor(min(MOST * size, max(listed)) / step)
    stride = max(1, (last - first) // FEW)
    return [number * step for number in range(max(first, 1), last + 1, stride) if number * step not in listed]


def _from_files(problem: Problem) -> bool:
    return any(isinstance(source, Safetensors) for each in problem.workloads for source in each.inputs.values())
