"""Techniques for the CPU lane: C++ for every problem of our own, rewrites in torch, the compiler."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from benchmarks.catalogue import Catalogue
from benchmarks.kernels.catalogue import general, rewrites
from benchmarks.kernels.catalogue.cpu import cpp
from benchmarks.kernels.catalogue.template import techniques
from benchmarks.kernels.families import Family
from benchmarks.kernels.formats.loader import load_problems

MODES = ("default", "max-autotune-no-cudagraphs")
FUSED = {  # on one core the others gain nothing: their matmuls and selections stay those of the library
    Family.NORM, Family.NORM_BACKWARD, Family.SOFTMAX, Family.ELEMENTWISE, Family.GATED_ACTIVATION, Family.ROPE,
    Family.CROSS_ENTROPY, Family.SCALED_GEMM,
}  # fmt: skip
TEMPLATES = (
    *cpp.TEMPLATES,
    *rewrites.BOTH,
    *rewrites.CPU,
    general.NO_FLOAT64,
    general.compile_template(MODES, 0.35, lambda family: family in FUSED),
    general.compile_template(MODES, -0.1, lambda family: family not in FUSED),
)


@lru_cache(maxsize=4)
def for_data(data: Path) -> Catalogue:
    """The techniques for the problems of prepared data, whose folder is named by its content and read once."""
    return techniques(TEMPLATES, load_problems(data / "problems"))
