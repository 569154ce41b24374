"""The order in which a few problems stand for all: every beginning of it spreads over families and sizes.

A noise floor has fewer pairs than there are problems, and a matmul of 50 ms is quieter than a norm of 20 µs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from benchmarks.kernels.families import Family, family_of
from benchmarks.kernels.formats.workload import Problem

LARGEST = math.log(2 << 30)  # what is larger takes minutes to measure, and comes last


def in_turn(problems: Sequence[Problem]) -> list[str]:
    """The names, the smallest problem first. Next is always of a family that had the fewest turns so far, and of these
    the one whose size is farthest from all sizes before it; those above LARGEST when all others had their turn.
    """
    large = {problem.name for problem in problems if size(problem) > LARGEST}
    return [
        *_spread([problem for problem in problems if problem.name not in large]),
        *_spread([problem for problem in problems if problem.name in large]),
    ]


def _spread(problems: Sequence[Problem]) -> list[str]:
    left = {problem.name: family_of(problem.definition) for problem in problems}
    sizes = {problem.name: size(problem) for problem in problems}
    apart = {name: -sizes[name] for name in left}  # from the sizes before it; at first small ones lead
    turns: Counter[Family] = Counter()
    order: list[str] = []
    while left:
        chosen = min(left, key=lambda name: (turns[left[name]], -apart[name], name))
        turns[left.pop(chosen)] += 1
        for name in left:
            distance = abs(sizes[name] - sizes[chosen])
            apart[name] = min(apart[name], distance) if order else distance
        order.append(chosen)
    return order


def size(problem: Problem) -> float:
    """Log of the bytes of inputs and outputs, the mean over the workloads."""
    return fmean(
        math.log(max(1, problem.definition.declared_bytes(problem.definition.resolve(each.axes))))
        for each in problem.workloads
    )
