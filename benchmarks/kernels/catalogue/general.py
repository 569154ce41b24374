"""Templates that fit any problem whose reference has what they change: the compiler, and precision nobody asked for."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from benchmarks import edits
from benchmarks.catalogue import Tunable, Tunables
from benchmarks.edits import DoesNotApply
from benchmarks.kernels.catalogue.template import Template
from benchmarks.kernels.families import Family, calls_of, family_of, nodes_of
from benchmarks.kernels.formats.axes import Const
from benchmarks.kernels.formats.workload import Problem

OWN_CODE = ("compile_cpp", "triton", "torch.compile", "load_inline")  # what torch.compile cannot look into
DYNAMIC = {"one for each size": "False", "one for all sizes": "True", "as sizes come": "None"}
SIZES = 64  # for each of which a program may be compiled: more than the eight that are let
LONGEST_LOOP = 16  # steps
UNTRACED = {"item", "tolist", "numpy", "nonzero", "unique", "make_tensor"}
DOUBLE = re.compile(r"torch\.(float64|double)\b|\.double\(\)")


def can_compile(problem: Problem) -> bool:
    """No loop in Python that is long or of unknown length, as each is unrolled, and no values that Python must see."""
    nodes = nodes_of(problem.definition.reference)
    loops = [node for node in nodes if isinstance(node, ast.For | ast.While)]
    return all(_is_short(node, problem) for node in loops) and not calls_of(problem.definition.reference) & UNTRACED


def _is_short(loop: ast.For | ast.While, problem: Problem) -> bool:
    """Over a literal, or over a range whose length is written there or is a fixed axis."""
    if isinstance(loop, ast.While):
        return False
    if isinstance(loop.iter, ast.Tuple | ast.List):
        return True
    if not (isinstance(loop.iter, ast.Call) and ast.unparse(loop.iter.func) == "range" and len(loop.iter.args) == 1):
        return False
    (length,) = loop.iter.args
    axis = problem.definition.axes.get(length.id) if isinstance(length, ast.Name) else None
    steps = axis.value if isinstance(axis, Const) else getattr(length, "value", None)
    return isinstance(steps, int) and steps <= LONGEST_LOOP


def compiled(source: str, problem: Problem, tunables: Tunables) -> str:
    if any(word in source for word in OWN_CODE):
        raise DoesNotApply(f"{problem.name} is compiled already, or by a kernel of its own")
    dynamic, mode = DYNAMIC[str(tunables["kernels"])], str(tunables["mode"])
    return with_compiler(source, f"mode={mode!r}, dynamic={dynamic}")


def with_compiler(source: str, options: str) -> str:
    source = edits.new_import(source, "import torch").rstrip()
    return f"{source}\n\n\ntorch._dynamo.config.recompile_limit = {SIZES}\nrun = torch.compile(run, {options})\n"


def without_float64(source: str, problem: Problem, tunables: Tunables) -> str:
    if not DOUBLE.search(source):
        raise DoesNotApply(f"{problem.name} computes nothing in float64")
    return DOUBLE.sub(lambda found: ".float()" if found[0].startswith(".") else "torch.float32", source)


def wants_no_float64(problem: Problem) -> bool:
    """Whether something between inputs and outputs that are no float64 is; what makes the inputs does not count."""
    definition = problem.definition
    module = nodes_of(definition.reference)[0]
    entry = definition.custom_inputs_entrypoint
    computed = [node for node in ast.iter_child_nodes(module) if getattr(node, "name", "") != (entry or " ")]
    specs = (*definition.inputs.values(), *definition.outputs.values())
    found = any(DOUBLE.search(ast.unparse(node)) for node in computed)
    return found and all(spec.dtype != "float64" for spec in specs)


def compile_template(
    modes: tuple[str, ...], prior_gain: float, fits: Callable[[Family], bool] = lambda family: True,
    kernels: str = "one for each size",
) -> Template:  # fmt: skip
    """For the families that `fits` says."""
    return Template(
        "compile",
        "The reference, compiled by TorchInductor",
        "Inductor fuses what stands between reductions and matmuls, so that intermediate tensors are never written.",
        "Ansel et al. 2024, PyTorch 2 (ASPLOS)",
        lambda problem: can_compile(problem) and fits(family_of(problem.definition)),
        compiled,
        (Tunable("mode", modes[0], choices=modes), Tunable("kernels", kernels, choices=tuple(DYNAMIC))),
        prior_gain,
        0.3,
    )


NO_FLOAT64 = Template(
    "no_float64",
    "Intermediate values in float32 instead of float64",
    "The tolerance asks for no more than float32; float64 doubles the bytes and runs at a fraction of the rate.",
    "elementary",
    wants_no_float64,
    without_float64,
    prior_gain=0.1,
)
