"""What a reference computes, where it is one of a few plain patterns and nothing else; by its syntax tree alone.

A pattern is strict: calls and operators beyond those it knows make it None, so that a kernel never stands for a
reference that does more. The judge has the last word.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass

from benchmarks.kernels.families import calls_of, nodes_of
from benchmarks.kernels.formats.definition import Definition, TensorSpec

CASTS = frozenset({"float", "to", "type", "bfloat16", "half", "type_as", "contiguous", "no_grad"})
MATMULS = frozenset({"matmul", "mm", "linear", "@"})
ACTIVATIONS = frozenset({"silu", "gelu"})
SIXTEEN = frozenset({"float16", "bfloat16"})
FLOATS = SIXTEEN | {"float32"}


@dataclass(frozen=True)
class RowNorm:
    """y = x / sqrt(mean(x^2) + eps) * weight over the last dimension, with a residual before or after, or none."""

    x: str
    weight: str
    eps: str  # a number, or the name of a scalar input
    residual: str = ""
    after: bool = False  # the residual is added to what is normalised
    rounded: bool = False  # the sum before the norm is rounded to the dtype of x
    gives_sum: bool = False  # the sum is the second output


@dataclass(frozen=True)
class Gated:
    """y = activation(gate) * value: two inputs, or the halves of one."""

    gate: str
    value: str  # empty: the other half of the input `gate`
    activation: str  # silu, gelu or gelu_tanh
    gate_second: bool = False  # of halves


@dataclass(frozen=True)
class Product:
    """left (rows, inner) times right (columns, inner), transposed, in 16 bits."""

    left: str
    right: str


def row_norm(definition: Definition) -> RowNorm | None:
    run = _run(definition)
    tensors = {name: spec for name, spec in definition.inputs.items() if spec.shape is not None}
    scalars = [name for name in definition.inputs if name not in tensors]
    outputs = list(definition.outputs.values())
    wide = [name for name, spec in tensors.items() if spec.shape == outputs[0].shape and len(spec.shape or ()) >= 2]
    weights = [name for name, spec in tensors.items() if _is_row(spec, outputs[0])]
    if len(wide) not in (1, 2) or len(weights) != 1 or len(wide) + 1 != len(tensors) or len(scalars) > 1:
        return None
    if any(spec.dtype not in FLOATS or spec.dtype != outputs[0].dtype for spec in (*tensors.values(), *outputs)):
        return None
    found = calls_of(definition.reference)
    if not found <= CASTS | {"rsqrt", "mean", "pow", "square"} or not {"rsqrt", "mean"} <= found:
        return None
    operators = Counter(type(node.op).__name__ for node in ast.walk(run) if isinstance(node, ast.BinOp))
    if operators != Counter({"Add": len(wide), "Mult": 2}):
        return None
    eps = _epsilon(run, scalars)
    sums = [node for node in ast.walk(run) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add)]
    residuals = [node for node in sums if any(_input(side) in wide for side in (node.left, node.right))]
    if eps is None or len(outputs) > 2 or len(residuals) != len(wide) - 1:
        return None
    if len(wide) == 1:
        return RowNorm(wide[0], weights[0], eps) if len(outputs) == 1 else None
    sides = [_input(residuals[0].left), _input(residuals[0].right)]
    if set(sides) == set(wide):
        rounded = all(isinstance(side, ast.Name) for side in (residuals[0].left, residuals[0].right))
        rounded = rounded or _is_rounded(run, residuals[0])
        return RowNorm(wide[0], weights[0], eps, wide[1], False, rounded, len(outputs) == 2)
    residual = next(side for side in sides if side in wide)
    x = next(name for name in wide if name != residual)
    return RowNorm(x, weights[0], eps, residual, after=True) if len(outputs) == 1 else None


def gated(definition: Definition) -> Gated | None:
    run = _run(definition)
    (output, *more), names = definition.outputs.values(), list(definition.inputs)
    specs = list(definition.inputs.values())
    found = calls_of(definition.reference)
    if more or any(spec.shape is None or spec.dtype != output.dtype for spec in specs) or output.dtype not in FLOATS:
        return None
    if not found <= CASTS | ACTIVATIONS | {"chunk"} or len(found & ACTIVATIONS) != 1:
        return None
    if [type(node.op) for node in ast.walk(run) if isinstance(node, ast.BinOp)] != [ast.Mult]:
        return None
    call = next(node for node in ast.walk(run) if isinstance(node, ast.Call) and _last(node) in ACTIVATIONS)
    activation = _last(call) + ("_tanh" if _keyword(call, "approximate") == "tanh" else "")
    of = _input(call.args[0]) if call.args else ""
    if len(specs) == 2 and "chunk" not in found and all(spec.shape == output.shape for spec in specs) and of in names:
        return Gated(of, next(name for name in names if name != of), activation)
    halves = _halves(run)
    if len(specs) == 1 and of in halves:
        return Gated(names[0], "", activation, gate_second=halves.index(of) == 1)
    return None


def product(definition: Definition) -> Product | None:
    run, names = _run(definition), list(definition.inputs)
    specs, outputs = list(definition.inputs.values()), list(definition.outputs.values())
    found = calls_of(definition.reference)
    if len(specs) != 2 or len(outputs) != 1 or any(len(spec.shape or ()) != 2 for spec in (*specs, *outputs)):
        return None
    if len({spec.dtype for spec in (*specs, *outputs)}) != 1 or outputs[0].dtype not in SIXTEEN:
        return None
    if not found <= MATMULS | {"no_grad", "t"} or len(found & MATMULS) != 1:
        return None
    operators = [node for node in ast.walk(run) if isinstance(node, ast.BinOp)]
    if len(operators) != ("@" in found):
        return None
    (rows, inner), (columns, same) = (spec.shape or () for spec in specs)
    fits = inner == same and outputs[0].shape == (rows, columns)
    return Product(names[0], names[1]) if fits and len(set((rows, inner, columns))) == 3 else None


def _run(definition: Definition) -> ast.FunctionDef:
    functions = (node for node in nodes_of(definition.reference) if isinstance(node, ast.FunctionDef))
    return next(node for node in functions if node.name == "run")


def _is_row(spec: TensorSpec, of: TensorSpec) -> bool:
    return spec.shape is not None and len(spec.shape) == 1 and spec.shape[-1:] == (of.shape or ())[-1:]


def _last(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _input(node: ast.expr) -> str:
    """The name that an expression is, whatever it is cast to; empty: it is no name."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CASTS:
        node = node.func.value
    return node.id if isinstance(node, ast.Name) else ""


def _keyword(call: ast.Call, name: str) -> object:
    return next((each.value.value for each in call.keywords
                 if each.arg == name and isinstance(each.value, ast.Constant)), None)  # fmt: skip


def _is_rounded(run: ast.FunctionDef, node: ast.BinOp) -> bool:
    """Whether a sum of widened values is cast back at once: (a.float() + b.float()).to(...)."""
    return any(isinstance(outer, ast.Call) and isinstance(outer.func, ast.Attribute) and outer.func.value is node
               and outer.func.attr in ("to", "bfloat16", "half", "type") for outer in ast.walk(run))  # fmt: skip


def _epsilon(run: ast.FunctionDef, scalars: list[str]) -> str | None:
    """The other summand inside the argument of rsqrt: a number, a constant of the function, or the scalar input."""
    call = next(node for node in ast.walk(run) if isinstance(node, ast.Call) and _last(node) == "rsqrt")
    inside = call.args[0] if call.args else None
    if not (isinstance(inside, ast.BinOp) and isinstance(inside.op, ast.Add)):
        return None
    constants = {node.targets[0].id: node.value for node in ast.walk(run) if isinstance(node, ast.Assign)
                 and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant)}  # fmt: skip
    for side in (inside.left, inside.right):
        if isinstance(side, ast.Name):
            if side.id in scalars:
                return side.id
            side = constants.get(side.id, side)
        if isinstance(side, ast.Constant) and isinstance(side.value, float) and not scalars:
            return repr(side.value)
    return None


def _halves(run: ast.FunctionDef) -> list[str]:
    """The two names that `a, b = x.chunk(2, dim=-1)` gives."""
    for node in ast.walk(run):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _last(node.value) == "chunk":
            target, call = node.targets[0], ast.unparse(node.value)
            if isinstance(target, ast.Tuple) and call.endswith(("chunk(2, dim=-1)", "chunk(2, -1)")):
                return [each.id for each in target.elts if isinstance(each, ast.Name)]
    return []
