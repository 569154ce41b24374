"""Triton kernels for problems of any width whose reference is one of the plain patterns: a file each in `files/`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.catalogue import Tunables
from benchmarks.kernels.catalogue.gpu import patterns
from benchmarks.kernels.catalogue.template import Template
from benchmarks.kernels.formats.definition import Definition
from benchmarks.kernels.formats.workload import Problem

FILES = Path(__file__).parent / "files"


def norm_call(definition: Definition) -> str | None:
    of = patterns.row_norm(definition)
    if of is None:
        return None
    before, after = bool(of.residual) and not of.after, of.after
    return (f"normalised({of.x}, {of.residual or of.x}, {of.weight}, {of.eps}, before={before}, after={after}, "
            f"rounded={of.rounded}, gives_sum={of.gives_sum})")  # fmt: skip


def gated_call(definition: Definition) -> str | None:
    of = patterns.gated(definition)
    if of is None:
        return None
    if of.value:
        gate, value = f"{of.gate}.contiguous()", f"{of.value}.contiguous()"
        return f"product({gate}, {value}, {of.gate}.shape[-1], {of.activation!r})"
    width = f"{of.gate}.shape[-1] // 2"
    halves = [f"{of.gate}.contiguous()", f"{of.gate}.contiguous()[..., {width} :]"]
    gate, value = reversed(halves) if of.gate_second else halves
    return f"product({gate}, {value}, {width}, {of.activation!r})"


def product_call(definition: Definition) -> str | None:
    of = patterns.product(definition)
    return None if of is None else f"product({of.left}, {of.right})"


Call = Callable[[Definition], str | None]  # what `run` returns, in the words of the file; None: not of that pattern


def by_pattern(name: str, call: Call, title: str, hypothesis: str, source: str, prior_gain: float) -> Template:
    def rewrite(text: str, problem: Problem, tunables: Tunables) -> str:
        inputs = ", ".join(problem.definition.inputs)
        kernel = (FILES / f"{name}.py").read_text(encoding="utf-8")
        return f"{kernel}\n\ndef run({inputs}):\n    return {call(problem.definition)}\n"

    def fits(problem: Problem) -> bool:
        return call(problem.definition) is not None

    return Template(f"triton_{name}", title, hypothesis, source, fits, rewrite, (), prior_gain, 0.2, whole=True)


TEMPLATES = (
    by_pattern("row_norm", norm_call, "RMS norm of rows in one Triton pass",
               "Eager torch writes the widened row, its square and its scaled self; one pass reads and writes it once.",
               "Triton's layer-norm tutorial; Liger-Kernel (Hsu et al. 2024)", 0.75),
    by_pattern("gated", gated_call, "Gated activation in one Triton pass",
               "The activation is written and read again by eager torch; one pass moves a third less.",
               "Liger-Kernel (Hsu et al. 2024)", 0.35),
    by_pattern("product", product_call, "Matmul by tiles that were tried, split where there are few",
               "The library chooses by a table; the best of ten tiles, with the inner axis split for few rows, reads "
               "weights at more of the rate of the memory.", "Triton's tutorial 3; CUTLASS, split-K", 0.05),
)  # fmt: skip
