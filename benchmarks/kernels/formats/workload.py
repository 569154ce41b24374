"""workload.jsonl: one size of a problem a line, where its inputs come from, what counts as equal.

Two habits of the official harness are kept, each behind a name:
- `required_match_ratio` (so spelled in all released L2 workloads) is an unknown key there and ignored, so that 0.99
  holds. `honour_misspelled_ratio=True` reads it.
- A workload without tolerance has the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.kernels.formats.axes import LARGEST, Var
from benchmarks.kernels.formats.definition import Definition
from benchmarks.kernels.formats.fields import (
    boolean,
    identifier,
    inner_path,
    integer,
    mapping,
    parse_json,
    real,
    shown,
    text,
    wrong,
)  # fmt: skip

HUGE = 1e300  # above any tolerance


@dataclass(frozen=True)
class Random:
    """Drawn by the heuristics of `benchmarks.kernels.inputs`."""


@dataclass(frozen=True)
class Scalar:
    value: int | float | bool


@dataclass(frozen=True)
class Safetensors:
    path: str  # below the problem's folder
    tensor_key: str


@dataclass(frozen=True)
class Custom:
    """Made by the definition's own generator."""


InputSource = Random | Scalar | Safetensors | Custom


@dataclass(frozen=True)
class Tolerance:
    max_atol: float = 1e-2
    max_rtol: float = 1e-2
    required_matched_ratio: float = 0.99
    max_error_cap: float | None = None  # of the largest absolute error
    allow_negative_inf: bool = False


@dataclass(frozen=True)
class Workload:
    uuid: str
    axes: Mapping[str, int]  # the variable axes, and any that only the generator reads
    inputs: Mapping[str, InputSource]
    tolerance: Tolerance = Tolerance()


@dataclass(frozen=True)
class Problem:
    definition: Definition
    workloads: tuple[Workload, ...]
    id: int | None = None  # 1 to 235 of the official set
    collection: str = ""  # L1, L2, Quant, FlashInfer-Bench; empty: of another set
    folder: Path | None = None

    @property
    def name(self) -> str:
        return self.definition.name


def parse_workloads(
    lines: str, definition: Definition, where: str, honour_misspelled_ratio: bool = False
) -> tuple[Workload, ...]:
    found = tuple(
        parse_workload(parse_json(line, f"{where}:{number}"), definition, f"{where}:{number}", honour_misspelled_ratio)
        for number, line in enumerate(lines.splitlines(), 1)
        if line.strip()
    )
    if not found:
        wrong(where, "holds no workload", "write one JSON object a line")
    if len({workload.uuid for workload in found}) != len(found):
        wrong(where, "two workloads have the same uuid", "give each its own")
    return found


def parse_workload(raw: object, definition: Definition, where: str, honour_misspelled_ratio: bool = False) -> Workload:
    fields = mapping(raw, where)
    axes = {
        identifier(name, f"{where}: axes"): integer(value, f"{where}: axes.{name}", 0, LARGEST)
        for name, value in mapping(fields.get("axes"), f"{where}: axes").items()
    }
    for name in axes:
        if name in definition.axes and not isinstance(definition.axes[name], Var):
            wrong(f"{where}: axes", f"{shown(name)} is fixed by the definition", "remove it from the workload")
    inputs = {
        name: _source(value, f"{where}: inputs.{name}")
        for name, value in mapping(fields.get("inputs"), f"{where}: inputs").items()
    }
    _check_sources(inputs, definition, f"{where}: inputs")
    definition.shapes(axes)  # raises where an axis is missing or an expression is not integral
    tolerance = parse_tolerance(fields.get("tolerance"), f"{where}: tolerance", honour_misspelled_ratio)
    return Workload(text(fields.get("uuid"), f"{where}: uuid"), axes, inputs, tolerance)


def _source(raw: object, where: str) -> InputSource:
    fields = mapping(raw, where)
    kind = fields.get("type")
    if kind == "random":
        return Random()
    if kind == "custom":
        return Custom()
    if kind == "scalar":
        value = fields.get("value")
        if not isinstance(value, int | float) or abs(value) > 2**63:
            wrong(f"{where}.value", f"is {shown(value)}", "it must be a number or a truth value")
        return Scalar(value)
    if kind == "safetensors":
        return Safetensors(inner_path(fields.get("path"), f"{where}.path"),
                           text(fields.get("tensor_key"), f"{where}.tensor_key"))  # fmt: skip
    return wrong(f"{where}.type", f"is {shown(kind)}", "it must be random, scalar, safetensors or custom")


def _check_sources(inputs: Mapping[str, InputSource], definition: Definition, where: str) -> None:
    custom = [name for name, source in inputs.items() if isinstance(source, Custom)]
    if custom and len(custom) != len(inputs):
        wrong(where, "custom inputs beside others", "make all of them custom, or none")
    if custom and definition.custom_inputs_entrypoint is None:
        wrong(where, "custom inputs without a generator", "name one as custom_inputs_entrypoint in the definition")
    # A released problem names two custom inputs that its definition lacks; the generator decides there.
    if not custom and inputs.keys() != definition.inputs.keys():
        odd = sorted(inputs.keys() ^ definition.inputs.keys())
        wrong(where, f"{shown(odd)} are not both here and in the definition", "name exactly the inputs")
    for name, source in inputs.items():
        spec = definition.inputs.get(name)
        if isinstance(source, Safetensors) and spec is not None and spec.shape is None:
            wrong(f"{where}.{name}", "a file for what is a Python scalar", "give a scalar")


def parse_tolerance(raw: object, where: str, honour_misspelled_ratio: bool = False) -> Tolerance:
    fields: dict[str, Any] = dict(mapping({} if raw is None else raw, where))
    if honour_misspelled_ratio and "required_match_ratio" in fields:
        fields.setdefault("required_matched_ratio", fields["required_match_ratio"])
    plain = Tolerance()
    cap = fields.get("max_error_cap")
    return Tolerance(
        real(fields.get("max_atol", plain.max_atol), f"{where}.max_atol", 0, HUGE),
        real(fields.get("max_rtol", plain.max_rtol), f"{where}.max_rtol", 0, HUGE),
        real(fields.get("required_matched_ratio", 0.99), f"{where}.required_matched_ratio", 0, 1),
        None if cap is None else real(cap, f"{where}.max_error_cap", 0, HUGE),
        boolean(fields.get("allow_negative_inf", False), f"{where}.allow_negative_inf"),
    )
