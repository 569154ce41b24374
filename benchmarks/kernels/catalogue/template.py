"""A template: one way to make kernels faster, and the technique that it becomes for each problem that it fits.

A technique is named TEMPLATE__PROBLEM, has the family of its problem, and changes that problem's solution.py alone, so
that techniques of different problems stand beside each other. Two templates that bring a whole file exclude each other
on one problem; what edits a file goes before one that brings a whole one, never after.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.catalogue import Catalogue, Sources, Technique, Tunable, Tunables
from benchmarks.edits import DoesNotApply
from benchmarks.kernels.families import Family, family_of
from benchmarks.kernels.formats.workload import Problem
from benchmarks.kernels.sample import size

COSTLY = 1 << 30  # bytes of inputs and outputs that double the time of a trial: they are drawn, copied and compared


@dataclass(frozen=True)
class Template:
    name: str
    title: str
    hypothesis: str
    source: str
    fits: Callable[[Problem], bool]
    rewrite: Callable[[str, Problem, Tunables], str]  # solution.py, before and after; raises DoesNotApply
    tunables: tuple[Tunable, ...] = ()
    prior_gain: float = 0.1
    prior_sd: float = 0.15
    whole: bool = False  # brings a whole file, whatever stood there

    def of(self, problem: Problem, family: Family, beside: Sequence[Template]) -> Technique:
        """For one problem, with those of the templates `beside` that it excludes there."""

        def apply(sources: Sources, tunables: Tunables) -> Sources:
            path = f"{problem.name}/solution.py"
            if path not in sources:
                raise DoesNotApply(f"there is no {path}")
            after = self.rewrite(sources[path], problem, tunables)
            if after == sources[path]:
                raise DoesNotApply(f"{path} has it already")
            return sources | {path: after}

        others = [each for each in beside if self.whole and each.whole and each is not self]
        return Technique(
            technique_name(self, problem),
            f"{self.title} ({problem.name})",
            str(family),
            self.hypothesis,
            self.source,
            apply,
            self.tunables,
            self.prior_gain,
            self.prior_sd,
            excludes=tuple(technique_name(each, problem) for each in others),
            cost=1 + math.exp(size(problem)) / COSTLY,
        )


def technique_name(template: Template, problem: Problem) -> str:
    return f"{template.name}__{re.sub(r'[^a-z0-9]+', '_', problem.name.lower())}"


def techniques(templates: Sequence[Template], problems: Iterable[Problem]) -> Catalogue:
    """Every template for every problem that it fits."""
    found = []
    for problem in problems:
        family = family_of(problem.definition)
        fitting = [template for template in templates if template.fits(problem)]
        found += [template.of(problem, family, fitting) for template in fitting]
    return Catalogue(found)


def named(name: str) -> Callable[[Problem], bool]:
    return lambda problem: problem.name == name
