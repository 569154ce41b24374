"""Settings of the library that a solution may choose for itself: of matmuls in float32, convolutions, the compiler."""

from __future__ import annotations

import ast

from benchmarks import edits
from benchmarks.catalogue import Tunable, Tunables
from benchmarks.edits import DoesNotApply
from benchmarks.kernels.catalogue.general import OWN_CODE, can_compile, with_compiler
from benchmarks.kernels.catalogue.template import Template
from benchmarks.kernels.families import calls_of, nodes_of
from benchmarks.kernels.formats.workload import Problem

CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"}
MULTIPLIERS = {"matmul", "bmm", "mm", "addmm", "baddbmm", "linear", "einsum", *CONVOLUTIONS}
CASTS = {"float", "half", "bfloat16", "to", "type", "type_as"}
YES_NO = ("yes", "no")


def multiplies_float32(problem: Problem) -> bool:
    """Whether matmuls or convolutions see float32: as it is given, or what the reference widened before."""
    specs = problem.definition.inputs.items()
    wide = {name for name, spec in specs if spec.dtype == "float32" and len(spec.shape or ()) >= 2}
    nodes = nodes_of(problem.definition.reference)
    assigned = sorted((node for node in nodes if isinstance(node, ast.Assign)), key=lambda node: node.lineno)
    for node in assigned * 2:  # twice: what a loop or a function above has from below
        if _is_wide(node.value, wide):
            wide |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return any(_is_wide(operand, wide) for node in nodes for operand in _operands(node))


def _operands(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        return [node.left, node.right]
    if isinstance(node, ast.Call) and (name := ast.unparse(node.func).rpartition(".")[2]) in MULTIPLIERS:
        own = isinstance(node.func, ast.Attribute) and name in ("matmul", "bmm", "mm")
        return [*node.args, *([node.func.value] if own and isinstance(node.func, ast.Attribute) else [])]
    return []


def _is_wide(value: ast.expr, wide: set[str]) -> bool:
    """Whether an expression is float32 where the names in `wide` are: unless the last thing done is a cast to less."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in CASTS:
        return value.func.attr == "float" or "float32" in "".join(map(ast.unparse, value.args))
    if isinstance(value, ast.Name):
        return value.id in wide
    return any(_is_wide(child, wide) for child in ast.iter_child_nodes(value) if isinstance(child, ast.expr))


def set_before_run(source: str, line: str) -> str:
    if line in source:
        raise DoesNotApply(f"{line} stands there already")
    return edits.define_before(edits.new_import(source, "import torch"), "run", line)


def with_tf32(source: str, problem: Problem, tunables: Tunables) -> str:
    source = set_before_run(source, "torch.backends.cuda.matmul.allow_tf32 = True")
    return set_before_run(source, "torch.backends.cudnn.allow_tf32 = True")


def with_search(source: str, problem: Problem, tunables: Tunables) -> str:
    return set_before_run(source, "torch.backends.cudnn.benchmark = True")


def compiled(source: str, problem: Problem, tunables: Tunables) -> str:
    if any(word in source for word in OWN_CODE):
        raise DoesNotApply(f"{problem.name} is compiled already, or by a kernel of its own")
    wanted = {name: tunables[name] == "yes" for name in ("coordinate_descent_tuning", "max_autotune", "shape_padding")}
    options = wanted | {"triton.cudagraphs": False}
    return with_compiler(source, f"options={options!r}")


TEMPLATES = (
    Template("tf32", "Matmuls of float32 by TF32", "Inputs rounded to 10 bits stay within the tolerance, and tensor "
             "cores multiply them several times as fast as float32.", "NVIDIA A100 whitepaper, 2020",
             multiplies_float32, with_tf32, prior_gain=0.5, prior_sd=0.3),
    Template("search_convolution", "Convolutions by the fastest algorithm of cuDNN", "cuDNN's first guess is not its "
             "fastest algorithm at these shapes.", "cuDNN's documentation",
             lambda problem: bool(calls_of(problem.definition.reference) & CONVOLUTIONS), with_search,
             prior_gain=0.05),
    Template("compile_tuned", "The reference, compiled, with tiles searched along each coordinate",
             "Inductor's first guess of tiles and warps is not the fastest; a search while warming up finds better.",
             "Ansel et al. 2024, PyTorch 2 (ASPLOS)", can_compile, compiled,
             (Tunable("coordinate_descent_tuning", "yes", choices=YES_NO),
              Tunable("max_autotune", "no", choices=YES_NO), Tunable("shape_padding", "yes", choices=YES_NO)),
             0.45, 0.3),
)  # fmt: skip
