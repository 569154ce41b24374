"""Techniques for the GPU lane: Triton kernels by problem and by pattern, rewrites in torch, settings, the compiler."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from benchmarks.catalogue import Catalogue
from benchmarks.kernels.catalogue import general, rewrites
from benchmarks.kernels.catalogue.gpu import by_pattern, own, settings
from benchmarks.kernels.catalogue.template import techniques
from benchmarks.kernels.formats.loader import load_problems

MODES = ("default", "max-autotune-no-cudagraphs")
TEMPLATES = (
    *own.TEMPLATES,
    *by_pattern.TEMPLATES,
    *rewrites.BOTH,
    *settings.TEMPLATES,
    general.NO_FLOAT64,
    general.compile_template(MODES, prior_gain=0.5, kernels="as sizes come"),
)


@lru_cache(maxsize=4)
def for_data(data: Path) -> Catalogue:
    """The techniques for the problems of prepared data, whose folder is named by its content and read once."""
    return techniques(TEMPLATES, load_problems(data / "problems"))
