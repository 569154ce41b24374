"""The Triton solutions of our own problems, as they stand beside their definitions, with what of them can be tuned."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Tunable, Tunables
from benchmarks.edits import DoesNotApply
from benchmarks.kernels.catalogue.template import Template
from benchmarks.kernels.formats.loader import OWN, load_problem
from benchmarks.kernels.formats.workload import Problem


def choice(name: str, default: int, *choices: int) -> Tunable:
    return Tunable(name, default, choices=(default, *choices))


IN_FLIGHT = choice("in_flight", 2048, 1024, 4096, 8192)
BLOCK = choice("block", 1024, 512, 2048, 4096)
GROUP = choice("group", 8, 4, 16)
TUNABLES: dict[str, tuple[Tunable, ...]] = {  # constants of the files, lower case
    "add_rms_norm": (IN_FLIGHT,),
    "causal_conv1d": (choice("channels", 512, 256, 128), choice("times", 16, 8, 32), choice("warps", 4, 2, 8)),
    "cross_entropy": (choice("block", 4096, 1024, 2048, 8192), choice("warps", 8, 4, 16)),
    "embedding_gradient": (choice("columns", 256, 128, 512),),
    "fp8_block_gemm": (GROUP,),
    "geglu_tanh": (BLOCK,),
    "gemm_bias_gelu": (GROUP,),
    "gqa_decode": (choice("keys", 64, 32, 128), choice("programs", 528, 264, 1056), choice("least", 256, 128, 512)),
    "moe_gating": (choice("tokens", 4, 1, 2, 8),),
    "rms_norm": (IN_FLIGHT,),
    "rms_norm_backward": (choice("programs", 528, 132, 264, 1056),),
    "rope": (choice("in_flight", 1024, 512, 2048),),
    "silu_backward": (BLOCK,),
    "skinny_gemm": (choice("programs", 528, 264, 1056), choice("least", 512, 256, 1024)),
    "softcapped_softmax": (IN_FLIGHT,),
    "swiglu_gate_up": (GROUP,),
    "wkv_decay": (choice("stretch", 128, 64, 256), choice("channels", 64, 32, 128)),
}
PRIOR_GAIN = {  # of those that eager torch does well already, or by few calls
    "gemm_bias_gelu": 0.2, "swiglu_gate_up": 0.3, "skinny_gemm": 0.1, "gqa_prefill": 0.1, "geglu_tanh": 0.4,
    "wkv_decay": 0.97, "moe_gating": 0.9,
}  # fmt: skip


def rewrite(source: str, problem: Problem, tunables: Tunables) -> str:
    text = (OWN / problem.name / "triton_kernel.py").read_text(encoding="utf-8")
    for name, value in tunables.items():
        text = edits.constant(text, name.upper(), value)
    if source == text:
        raise DoesNotApply(f"{problem.name} has this kernel already")
    return text


def solves(name: str, problem: Problem) -> bool:
    """Whether it is that problem of our own, and no other of its name."""
    return problem.name == name and problem.definition == load_problem(OWN / name).definition


def template(name: str) -> Template:
    return Template(
        "triton",
        "The shipped Triton kernel",
        "What eager torch writes between its kernels stays in registers, and every tensor is read once.",
        "own; the file names what it is after",
        lambda problem: solves(name, problem),
        rewrite,
        TUNABLES.get(name, ()),
        PRIOR_GAIN.get(name, 0.7),
        0.2,
        whole=True,
    )


TEMPLATES = tuple(template(path.parent.name) for path in sorted(OWN.glob("*/triton_kernel.py")))
