"""Techniques for the CPU lane: C++ for every problem of our own, rewrites in torch, the compiler."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from benchmarks.catalogue import Catalogue
from benchmarks.kernels.catalogue import general, rewrites
from benchmarks.kernels.catalogue.cpu import cpp
from benchmarks.kernels.catalogue.template import techniques
from benchmarks.kernels.formats.loader import load_problems

MODES = ("default", "max-autotune-no-cudagraphs")
TEMPLATES = (
    *cpp.TEMPLATES,
    *rewrites.BOTH,
    *rewrites.CPU,
    general.NO_FLOAT64,
    general.compile_template(MODES, prior_gain=0.3),
)


@lru_cache(maxsize=4)
def for_data(data: Path) -> Catalogue:
    """The techniques for the problems of prepared data, whose folder is named by its content and read once."""
    return techniques(TEMPLATES, load_problems(data / "problems"))
