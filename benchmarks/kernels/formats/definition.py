"""definition.json: what a kernel computes, by its axes, tensors and a reference in PyTorch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from benchmarks.kernels.formats.axes import Axis, Const, Expr, Var, evaluate, names, parse_axis
from benchmarks.kernels.formats.fields import (
    identifier,
    mapping,
    optional_text,
    sequence,
    shown,
    text,
    wrong,
)
from benchmarks.syntax import parse

BITS: Mapping[str, int] = {  # of one element; of fp4, one axis element holds two values
    "float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "float8_e4m3fn": 8, "float8_e5m2": 8,
    "float4_e2m1": 8, "float4_e2m1fn_x2": 8, "int64": 64, "int32": 32, "int16": 16, "int8": 8, "bool": 8,
}  # fmt: skip
FP4 = frozenset({"float4_e2m1", "float4_e2m1fn_x2"})


@dataclass(frozen=True)
class TensorSpec:
    shape: tuple[str, ...] | None  # axis names or expressions; (): 0-D; None: a Python scalar
    dtype: str
    description: str = ""


@dataclass(frozen=True)
class Definition:
    """One problem. The order of `inputs` and `outputs` is the calling convention."""

    name: str
    axes: Mapping[str, Axis]
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    reference: str  # Python source that defines `run`
    op_type: str | None = None
    description: str = ""
    hf_id: str | None = None
    constraints: tuple[str, ...] = ()
    custom_inputs_entrypoint: str | None = None

    def resolve(self, given: Mapping[str, int]) -> dict[str, int]:
        """The value of every axis, in the order of declaration; given ones that are not declared come last."""
        where = f"{self.name}: axes"
        known = {name: axis.value for name, axis in self.axes.items() if isinstance(axis, Const)}
        for name, axis in self.axes.items():
            if isinstance(axis, Var):
                if name not in given:
                    wrong(where, f"the workload gives no {shown(name)}", "add it to its axes")
                known[name] = given[name]
        waiting = {name: axis.expression for name, axis in self.axes.items() if isinstance(axis, Expr)}
        while waiting:
            ready = [name for name, expression in waiting.items() if not names(expression, where) & waiting.keys()]
            if not ready:
                wrong(where, f"{shown(sorted(waiting))} depend on each other in a circle", "break the circle")
            known |= {name: evaluate(waiting.pop(name), known, f"{where}.{name}") for name in ready}
        extra = {name: value for name, value in given.items() if name not in self.axes}
        return {name: known[name] for name in self.axes} | extra

    def shapes(self, axes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The shape of every input and output that is a tensor, under the axes of a workload."""
        values = self.resolve(axes)
        found = {}
        for name, spec in (*self.inputs.items(), *self.outputs.items()):
            if spec.shape is not None:
                found[name] = tuple(evaluate(part, values, f"{self.name}: shape of {name}") for part in spec.shape)
        return found

    def declared_bytes(self, axes: Mapping[str, int]) -> int:
        """Bytes of all inputs and outputs as declared."""
        specs = {**self.inputs, **self.outputs}
        return sum(prod(shape) * BITS[specs[name].dtype] // 8 for name, shape in self.shapes(axes).items())

    @property
    def uses_fp4(self) -> bool:
        return "float4_e2m1" in self.reference or any(
            spec.dtype in FP4 for spec in (*self.inputs.values(), *self.outputs.values())
        )


def parse_definition(raw: object, where: str) -> Definition:
    fields = mapping(raw, where)
    name = text(fields.get("name"), f"{where}: name")
    if not name.isprintable() or "/" in name or "\\" in name or name.startswith("."):
        wrong(f"{where}: name", f"is {shown(name)}", "use letters, digits, '_' and '-'")
    axes = {
        identifier(key, f"{where}: axes"): parse_axis(value, f"{where}: axes.{key}")
        for key, value in mapping(fields.get("axes"), f"{where}: axes").items()
    }
    inputs, outputs = (_tensors(fields.get(side), axes, f"{where}: {side}") for side in ("inputs", "outputs"))
    if not outputs:
        wrong(f"{where}: outputs", "is empty", "name at least one output")
    for key in (*axes, *outputs):
        if key in inputs:
            wrong(f"{where}: inputs", f"{shown(key)} is also the name of an axis or output", "rename it")
    entry = optional_text(fields.get("custom_inputs_entrypoint"), f"{where}: custom_inputs_entrypoint")
    reference = text(fields.get("reference"), f"{where}: reference")
    _check_reference(reference, tuple(inputs), entry, f"{where}: reference")
    constraints = sequence(fields.get("constraints") or [], f"{where}: constraints")
    definition = Definition(
        name, axes, inputs, outputs, reference,
        op_type=optional_text(fields.get("op_type"), f"{where}: op_type"),
        description=optional_text(fields.get("description"), f"{where}: description") or "",
        hf_id=optional_text(fields.get("hf_id"), f"{where}: hf_id") or None,
        constraints=tuple(text(line, f"{where}: constraints") for line in constraints),
        custom_inputs_entrypoint=entry,
    )  # fmt: skip
    for key, axis in axes.items():
        if isinstance(axis, Expr) and (unknown := names(axis.expression, where) - axes.keys()):
            wrong(f"{where}: axes.{key}", f"uses {shown(sorted(unknown))}", "declare them among the axes")
    return definition


def _tensors(raw: object, axes: Mapping[str, Axis], where: str) -> dict[str, TensorSpec]:
    found = {}
    for key, value in mapping(raw, where).items():
        name, at = identifier(key, where), f"{where}.{key}"
        fields = mapping(value, at)
        if not isinstance(dtype := fields.get("dtype"), str) or dtype not in BITS:
            wrong(f"{at}.dtype", f"is {shown(dtype)}", f"it must be one of {', '.join(BITS)}")
        if "shape" not in fields:
            wrong(f"{at}.shape", "is missing", "write a list of axes, or null for a Python scalar")
        shape = None
        if fields["shape"] is not None:
            parts = sequence(fields["shape"], f"{at}.shape")
            shape = tuple(text(part, f"{at}.shape") for part in parts)
            for part in shape:
                if unknown := names(part, f"{at}.shape") - axes.keys():
                    wrong(f"{at}.shape", f"uses {shown(sorted(unknown))}", "declare them among the axes")
        found[name] = TensorSpec(shape, dtype, optional_text(fields.get("description"), f"{at}.description") or "")
    return found


def _check_reference(source: str, inputs: tuple[str, ...], entry: str | None, where: str) -> None:
    """The reference parses, and `run` takes the inputs by their names in their order."""
    try:
        tree = parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        wrong(where, f"does not parse ({getattr(error, 'msg', None) or 'not Python'})", "mend the source")
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if "run" not in functions:
        wrong(where, "defines no top-level function run", "name the entry point run")
    arguments = functions["run"].args
    taken = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    if arguments.vararg is None and arguments.kwarg is None and taken != list(inputs):
        wrong(where, f"run takes {shown(taken)}", f"it must take the inputs {shown(list(inputs))}")
    if entry and entry not in functions:
        wrong(where, f"defines no function {shown(entry)}", "mend custom_inputs_entrypoint")
