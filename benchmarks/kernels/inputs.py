"""Inputs of a workload, drawn as the official harness draws them: by the name of the tensor.

Plain normal numbers everywhere give other verdicts: weights without 1/sqrt(fan-in) overflow a tolerance, a variance
below zero gives NaN. `RULES` is the official list; the first rule that matches draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from benchmarks.kernels.formats.definition import Definition
from benchmarks.kernels.formats.fields import wrong
from benchmarks.kernels.formats.loader import find_blob
from benchmarks.kernels.formats.workload import Custom, Safetensors, Scalar, Workload
from benchmarks.kernels.reference import Reference, ReferenceFailed, Value, torch_dtype

Shape = tuple[int, ...]
NORMAL = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
FP8 = frozenset({torch.float8_e4m3fn, torch.float8_e5m2})
INTEGERS = {torch.int8: (-128, 128)} | dict.fromkeys((torch.int16, torch.int32, torch.int64), (-1024, 1024))
E2M1 = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)  # between the eight magnitudes of an fp4
DIGITS = "0123456789"


@dataclass(frozen=True)
class Drawn:
    """What a rule knows of the tensor it draws."""

    name: str
    shape: Shape
    dtype: torch.dtype
    device: torch.device
    description: str = ""

    @property
    def says(self) -> str:
        return self.description.lower()

    @property
    def base(self) -> str:
        return self.name.rstrip(DIGITS)

    def normal(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.randn(self.shape, dtype=dtype or self.dtype, device=self.device)

    def uniform(self, low: float, high: float) -> torch.Tensor:
        return torch.empty(self.shape, dtype=self.dtype, device=self.device).uniform_(low, high)


def make_inputs(
    definition: Definition,
    workload: Workload,
    seed: int,
    device: torch.device | str = "cpu",
    *,
    blobs: Path | None = None,
    reference: Reference | None = None,
) -> dict[str, Value]:
    """The inputs by name, in the order of the definition; the same for the same seed, device and torch.

    `blobs` is the folder below which safetensors paths lie; `reference` saves loading the definition's module again.
    The caller's random state is left as it was.
    """
    place = torch.device(device)
    shapes = definition.shapes(workload.axes)
    custom = any(isinstance(source, Custom) for source in workload.inputs.values())
    with seeded(seed, place):
        if custom:
            return _custom(definition, workload, reference or Reference(definition, place), shapes)
        found: dict[str, Value] = {}
        for name, spec in definition.inputs.items():
            source = workload.inputs[name]
            if isinstance(source, Scalar):
                found[name] = source.value
            elif isinstance(source, Safetensors):
                dtype = torch_dtype(spec.dtype)
                found[name] = load_blob(source, shapes[name], dtype, blobs, f"{definition.name}: {name}").to(place)
            elif spec.shape is None:
                found[name] = plain(Drawn(name, (), torch_dtype(spec.dtype), place)).item()
            else:
                drawn = draw(Drawn(name, shapes[name], torch_dtype(spec.dtype), place, spec.description))
                probabilities = definition.op_type == "sampling" and name == "probs"
                found[name] = torch.softmax(drawn, dim=-1) if probabilities else drawn
        return found


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _custom(
    definition: Definition, workload: Workload, reference: Reference, shapes: Mapping[str, Shape]
) -> dict[str, Value]:
    scalars = {name: source.value for name, source in workload.inputs.items() if isinstance(source, Scalar)}
    made = reference.generate(definition.resolve(workload.axes) | scalars)
    found: dict[str, Value] = {}
    for name, spec in definition.inputs.items():
        if name not in made:
            raise ReferenceFailed(f"{definition.name}: the generator makes no {name}; it must make every input")
        value = made[name]
        if spec.shape is None:
            if not isinstance(value, int | float):
                raise ReferenceFailed(f"{definition.name}: {name} is a {type(value).__name__}; make it a Python scalar")
        elif not isinstance(value, torch.Tensor) or tuple(value.shape) != shapes[name]:
            is_ = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ReferenceFailed(f"{definition.name}: {name} is {is_}; the definition says {shapes[name]}")
        else:
            value = value.to(reference.device)
        found[name] = value
    return found


def load_blob(source: Safetensors, shape: Shape, dtype: torch.dtype, blobs: Path | None, where: str) -> torch.Tensor:
    """A tensor of a safetensors file below `blobs`, on the CPU."""
    path = find_blob(source.path, blobs)
    if path is None:
        wrong(where, f"the file {source.path} is not below {blobs}", "fetch the benchmark's safetensors files there")
    try:
        with safe_open(path, framework="pt") as file:
            if source.tensor_key not in file.keys():  # noqa: SIM118  not a mapping
                wrong(where, f"{path} holds no {source.tensor_key!r}", "fetch the file again")
            tensor: torch.Tensor = file.get_tensor(source.tensor_key)
    except (SafetensorError, OSError) as error:
        wrong(where, f"{path} is no safetensors file ({error})", "fetch it again")
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        wrong(where, f"{path} has {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {shape}", "fetch the right file")
    return tensor


# The rules, in the official order. Each is (matches, draws).


def norm_parameter(kind: str) -> Callable[[Drawn], bool]:
    def matches(of: Drawn) -> bool:
        prefix, found, rest = of.name.rpartition(f"_{kind}")
        named = prefix.endswith(("_norm", "layernorm")) or prefix.rstrip(DIGITS).endswith("norm")
        return of.name == f"norm_{kind}" or bool(found and not rest and named)

    return matches


def causal_mask(of: Drawn) -> bool:
    square = len(of.shape) >= 2 and of.shape[-1] == of.shape[-2]
    described = "attention mask" in of.says and "causal" in of.says
    return square and (of.name in ("attention_mask", "causal_mask") or described)


def binary_mask(of: Drawn) -> bool:
    words = ("binary", "{0, 1}", "0 or 1", "1.0 for valid", "0.0 for masked")
    named = of.name in ("x_mask", "text_mask", "aspect_ratio_mask", "drop_mask", "attention_mask")
    return named or (of.name.endswith("_mask") and any(word in of.says for word in words))


def rotary(of: Drawn) -> bool:
    return of.name in ("cos", "sin", "cos_cached", "sin_cached", "rope_cos", "rope_sin")


def positive(of: Drawn) -> bool:
    plain = ("rstd", "std", "variance", "var")
    endings = ("_rstd", "_std", "_var")
    return of.base in plain or of.base.endswith(endings) or of.name.endswith("_variance")


def decay(of: Drawn) -> bool:
    return of.name in ("A", "A_log", "A_cumsum", "g")


def softmax_output(of: Drawn) -> bool:
    named = of.name in ("attn_weights", "attention_weights", "routing_weights")
    return named or ("softmax" in of.says and "output" in of.says)


def weight_matrix(of: Drawn) -> bool:
    endings = ("_weight", "_weights", "_proj", "_projs", "_weight_matrix")
    return len(of.shape) >= 2 and (of.base == "weight" or of.base.endswith(endings))


def draw_causal_mask(of: Drawn) -> torch.Tensor:
    above = torch.ones(of.shape[-2:], dtype=torch.bool, device=of.device).triu(1)
    zeros = torch.zeros(of.shape, dtype=of.dtype, device=of.device)
    return zeros.masked_fill(above, torch.finfo(of.dtype).min)


def draw_rotary(of: Drawn) -> torch.Tensor:
    angle = of.normal(torch.float32).clamp_(-math.pi, math.pi)
    return (torch.cos(angle) if "cos" in of.name else torch.sin(angle)).to(of.dtype)


def draw_decay(of: Drawn) -> torch.Tensor:
    if of.name == "A_cumsum":
        return of.uniform(-0.1, 0.0).cumsum(dim=-1)
    return of.uniform(*{"A_log": (-5.0, -1.0), "A": (-1.0, -0.001), "g": (-5.0, 0.0)}[of.name])


Rule = tuple[Callable[[Drawn], bool], Callable[[Drawn], torch.Tensor]]
RULES: tuple[Rule, ...] = (
    (norm_parameter("weight"), lambda of: torch.ones(of.shape, dtype=of.dtype, device=of.device)),
    (norm_parameter("bias"), lambda of: torch.zeros(of.shape, dtype=of.dtype, device=of.device)),
    (causal_mask, draw_causal_mask),
    (binary_mask, lambda of: torch.randint(0, 2, of.shape, device=of.device).to(of.dtype)),
    (rotary, draw_rotary),
    (positive, lambda of: of.normal().abs() + 0.1),
    (decay, draw_decay),
    (softmax_output, lambda of: torch.softmax(of.normal(torch.float32), dim=-1).to(of.dtype)),
    (weight_matrix, lambda of: of.normal() / math.sqrt(of.shape[-1])),
)


def draw(of: Drawn) -> torch.Tensor:
    """One tensor by the first rule that matches; fp8, fp4, integers and booleans have no rules."""
    if of.dtype in NORMAL:
        for matches, make in RULES:
            if matches(of):
                return make(of)
    return plain(of)


def plain(of: Drawn) -> torch.Tensor:
    """One tensor by its dtype alone."""
    if of.dtype in NORMAL:
        return of.normal()
    if of.dtype in FP8:
        return of.normal(torch.float32).clamp_(-2.0, 2.0).to(of.dtype)
    if of.dtype is torch.bool:
        return torch.randint(0, 2, of.shape, dtype=torch.bool, device=of.device)
    if of.dtype in INTEGERS:
        low, high = INTEGERS[of.dtype]
        return torch.randint(low, high, of.shape, dtype=of.dtype, device=of.device)
    return packed_fp4(of.normal(torch.float32)).view(of.dtype)


def packed_fp4(values: torch.Tensor) -> torch.Tensor:
    """Two neighbours of the last axis as e2m1 codes in one byte, the first in the low half: [..., n] -> [..., n/2].

    Where a value lies between two magnitudes the even code wins.
    """
    bounds = torch.tensor(E2M1, device=values.device)
    size = values.abs().contiguous()
    below, upto = torch.bucketize(size, bounds), torch.bucketize(size, bounds, right=True)
    code = torch.where(below % 2 == 0, below, upto).to(torch.uint8) + (values < 0).to(torch.uint8) * 8
    return code[..., ::2] | code[..., 1::2] << 4
