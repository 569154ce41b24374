"""Kernels in C++ for problems of our own: a file each in `files/`, with the headers they share put into its source.

They were measured against the references on one core of an x86 machine with AVX2 (`prior_gain`). A compiler flag that
tells it of no NaN lets minima and maxima be one instruction; inputs that are no numbers are nobody's to answer for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from benchmarks import edits
from benchmarks.catalogue import Tunable, Tunables
from benchmarks.kernels.catalogue.template import Template, named
from benchmarks.kernels.formats.workload import Problem

FILES = Path(__file__).parent / "files"


def kernel(problem: str, title: str, hypothesis: str, prior_gain: float, *tunables: Tunable) -> Template:
    """One whose tunables are upper-case constants of the file."""
    return Template(
        "cpp", title, hypothesis, "own", named(problem), _file(problem), tunables, prior_gain, 0.1, whole=True
    )


def _file(name: str) -> Callable[[str, Problem, Tunables], str]:
    def rewrite(source: str, problem: Problem, tunables: Tunables) -> str:
        text = solution(name)
        for constant, value in tunables.items():
            text = edits.constant(text, constant.upper(), value)
        return text

    return rewrite


@lru_cache(maxsize=64)
def solution(name: str) -> str:
    """A file with its headers in the place of the lines that include them: a solution is one file."""
    text = (FILES / f"{name}.py").read_text(encoding="utf-8")
    for header in sorted(FILES.glob("*.h")):
        text = text.replace(f'#include "{header.name}"\n', header.read_text(encoding="utf-8"))
    return text


def rows(default: int) -> Tunable:
    return Tunable("rows", default, choices=(1, 2, 3, 4, 6))


COLUMNS = Tunable("columns", 4, choices=(2, 4, 6, 8))
ONE_PASS = "The reference is bound by memory and calls: one pass whose values stay in the first cache is"
EMULATED = "Without bfloat16 instructions the library emulates them; weights widened once, for a few columns at a time,"

TEMPLATES = (
    kernel("rms_norm", "RMS norm in one C++ pass", f"{ONE_PASS} three times as fast.", 0.75),
    kernel("add_rms_norm", "Addition and RMS norm in one C++ pass", f"{ONE_PASS} three times as fast.", 0.75),
    kernel("rms_norm_backward", "Gradients of RMS norm in one C++ pass", f"{ONE_PASS} six times as fast.", 0.85),
    kernel("cross_entropy", "Cross-entropy and gradient in C++",
           "The reference keeps two float32 tensors of the size of the logits; a row at a time needs no such.", 0.7),
    kernel("rope", "Rotary embedding in one C++ pass", f"{ONE_PASS} five times as fast.", 0.8),
    kernel("geglu_tanh", "GEGLU in one C++ pass", f"{ONE_PASS} three times as fast.", 0.75),
    kernel("silu_backward", "SiLU's gradient in one C++ pass", f"{ONE_PASS} three times as fast.", 0.7),
    kernel("softcapped_softmax", "Capped softmax without a maximum, in C++",
           "Scores capped at 30 need no maximum subtracted: one pass less, and no float32 copy, three times faster.",
           0.7),
    kernel("causal_conv1d", "Causal convolution in C++, channels side by side",
           "The reference transposes twice and pads; a window of four rows in the first cache is four times as fast.",
           0.8),
    kernel("embedding_gradient", "Embedding gradient by counting sort, in C++",
           "Rows without visits need no float32 table; summing the visits of a row at once is twice as fast.", 0.5),
    kernel("wkv_decay", "WKV as one loop in C++",
           "The reference calls some twenty operations a step of time; one loop is twenty times as fast.", 0.96),
    kernel("moe_gating", "Expert choice in C++", f"{ONE_PASS} four times as fast.", 0.8),
    kernel("gqa_decode", "Decoding attention in C++",
           "Keys widened once for all heads of their group, in chunks that fit the cache, is twice as fast.", 0.5,
           rows(2), Tunable("chunk", 64, choices=(16, 32, 64, 128, 256))),
    kernel("gqa_prefill", "Causal attention in C++",
           "Scores of a few queries at a time in float32, up to the diagonal and not beyond, are faster than the "
           "library's emulation of bfloat16.", 0.35,
           rows(4), Tunable("queries", 16, choices=(4, 8, 16, 32))),
    kernel("skinny_gemm", "Matmul of few rows in C++", f"{EMULATED} are three times as fast.", 0.65, rows(2), COLUMNS),
    kernel("gemm_bias_gelu", "Linear layer and GELU in C++", f"{EMULATED} are three times as fast.", 0.7,
           rows(2), COLUMNS),
    kernel("swiglu_gate_up", "SwiGLU's projections in C++", f"{EMULATED} are four times as fast.", 0.75,
           rows(2), COLUMNS),
    kernel("fp8_block_gemm", "Block-scaled matmul in C++",
           "The library widens e4m3 number by number and repeats the scales; bit moves do both in the cache.", 0.75,
           rows(2), COLUMNS),
)  # fmt: skip
