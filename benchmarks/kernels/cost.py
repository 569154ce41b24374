"""What a workload cannot do without, found by running its reference on tensors that hold no data.

Bytes: each element of an input that the reference needs, once, and each element of an output, once. What is only
declared is not counted: inputs that are never read, rows that a gather does not touch (at most as many as it gives
out), elements outside the slices that are used, a returned input beyond the part that was written. A copy or a cast is
not a read, only what is then read of it.

Operations: multiply-accumulates of matmuls, convolutions and attention alone, by the formulas of torch's flop counter;
attention with `is_causal` half. They are priced at the narrowest floating dtype among the declared inputs of two
dimensions or more, whatever the reference casts to, or at fp8 where it quantises itself; float32 at the TF32 rate, or
with all its digits where the tolerance forbids TF32. Work that an algorithm could leave out but the reference does (a
mask over a full matmul) is counted: then the bound is too high, and a latency below it asks for a look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from benchmarks.kernels.bounds import Precision, Work
from benchmarks.kernels.formats.definition import BITS, Definition
from benchmarks.kernels.formats.workload import Custom, Scalar, Workload
from benchmarks.kernels.reference import Reference, ReferenceFailed, torch_dtype

aten = torch.ops.aten
MOST_CALLS = 4_000  # of torch by one reference: in a loop over a long sequence each takes about 1 ms to note
EXACT_RTOL, EXACT_ATOL = 1e-5, 1e-4  # a tolerance that is as tight in both cannot be met with TF32

_PRECISIONS = {
    "float4_e2m1": Precision.NVFP4, "float4_e2m1fn_x2": Precision.NVFP4, "float8_e4m3fn": Precision.FP8,
    "float8_e5m2": Precision.FP8, "bfloat16": Precision.BF16, "float16": Precision.BF16, "float32": Precision.FP32,
    "float64": Precision.FP64}  # fmt: skip
_NARROW_FIRST = (Precision.NVFP4, Precision.FP8, Precision.BF16, Precision.FP32, Precision.FP64)

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)

# Ops that read of their first tensor only as much as they give out, and those that only ask for its form.
_GATHERS = {aten.index_select, aten.index, aten.embedding, aten.gather, aten.take, aten._unsafe_index}
_FORM_ONLY = {aten.empty_like, aten.zeros_like, aten.ones_like, aten.full_like, aten.rand_like, aten.randn_like,
              aten.new_empty, aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty_strided}  # fmt: skip
_COPIES = {aten._to_copy, aten.clone, aten._unsafe_view}
# Ops that write part of their first tensor: how much is the size of the argument named.
_SCATTERS = {aten.index_put_: 2, aten.index_put: 2, aten._index_put_impl_: 2, aten.index_copy_: 3, aten.index_copy: 3,
             aten.scatter_: 3, aten.scatter: 3, aten.copy_: 1}  # fmt: skip


class CostError(ValueError):
    """A reference whose cost cannot be found without data, or that fails."""


class _CutOff(BaseException):
    """The reference was stopped: it called torch more than `MOST_CALLS` times. No `except Exception` shall hold it."""


@dataclass(frozen=True)
class Cost:
    """`work` makes the bound; `declared_bytes`: all inputs and outputs in full; `unread`: inputs never read.

    `cut_off`: a reference too long to follow to its end. Then each input that was read so far counts in full, and the
    operations are those so far.
    """

    work: Work
    declared_bytes: int
    unread: tuple[str, ...]
    cut_off: bool = False


def cost(definition: Definition, workload: Workload) -> Cost:
    """Raises CostError, one line, where the reference decides by values (`.item()`, boolean masks) or cannot run."""
    shapes = definition.shapes(workload.axes)
    sizes = {name: math.prod(shapes.get(name, ())) * BITS[spec.dtype] // 8 for name, spec in definition.outputs.items()}
    recorder = _Recorder()
    cut_off = False
    returned: dict[str, torch.Tensor] = {}
    with FakeTensorMode(), torch.random.fork_rng(devices=[]):
        try:
            reference = Reference(definition, "cpu")
            inputs = _inputs(reference, workload, shapes)
            recorder.begin(inputs)
            with recorder:
                returned = reference.run(inputs)
        except _CutOff:
            cut_off = True
        except ReferenceFailed as error:
            raise CostError(f"its cost cannot be found without data: {error}"[:250]) from error
        read = recorder.bytes_read(list(returned.values()), in_full=cut_off)
    written = sum(recorder.bytes_written(returned.get(name), size) for name, size in sizes.items())
    priced_at = Precision.FP8 if recorder.quantised else precision(definition, workload)
    macs = {priced_at: recorder.macs} if recorder.macs else {}
    unread = tuple(name for name in recorder.inputs if not read.get(name))
    return Cost(Work(sum(read.values()) + written, macs), definition.declared_bytes(workload.axes), unread, cut_off)


def precision(definition: Definition, workload: Workload) -> Precision:
    """Whose rate the matmuls of the problem are priced at."""
    found = {_PRECISIONS[spec.dtype] for spec in definition.inputs.values()
             if spec.shape is not None and len(spec.shape) > 1 and spec.dtype in _PRECISIONS}  # fmt: skip
    narrowest = next((each for each in _NARROW_FIRST if each in found), Precision.FP32)
    tolerance = workload.tolerance
    exact = tolerance.max_rtol <= EXACT_RTOL and tolerance.max_atol <= EXACT_ATOL
    return Precision.TF32 if narrowest is Precision.FP32 and not exact else narrowest


def _inputs(reference: Reference, workload: Workload, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """In order: tensors of the declared form; scalars as the workload or the problem's generator gives them, else 1."""
    definition, sources = reference.definition, workload.inputs.items()
    scalars: dict[str, Any] = {name: source.value for name, source in sources if isinstance(source, Scalar)}
    custom = any(isinstance(source, Custom) for _, source in sources)
    if custom and any(spec.shape is None for spec in definition.inputs.values()):
        scalars |= reference.generate({**definition.resolve(workload.axes), **scalars})
    return {name: scalars.get(name, 1) if spec.shape is None
            else torch.empty(shapes.get(name, ()), dtype=torch_dtype(spec.dtype))
            for name, spec in definition.inputs.items()}  # fmt: skip


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which elements of the inputs each operation reads and how many multiply-accumulates it makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = self.calls = 0
        self.quantised = False  # whether the reference itself makes fp8
        self.inputs: dict[str, torch.Tensor] = {}
        self.origin: dict[int, str] = {}  # storage -> the input that it is, or is a copy of
        self.own: dict[int, str] = {}  # storages of the inputs themselves
        self.read: dict[str, dict[object, int]] = {}  # input -> view -> elements
        self.touched: dict[int, int] = {}  # storage of an input -> bytes that were written
        self.alive: list[torch.Tensor] = []  # a storage that is freed could give its place to another

    def begin(self, inputs: Mapping[str, Any]) -> None:
        self.inputs = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        self.own = {_storage(tensor): name for name, tensor in self.inputs.items()}
        self.origin = dict(self.own)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise _CutOff
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        self.quantised |= isinstance(out, torch.Tensor) and out.dtype in _FP8
        if packet is aten._scaled_dot_product_flash_attention_for_cpu:
            causal = args[4] if len(args) > 4 else kwargs.get("is_causal", False)
            flops = sdpa_flop_count(*(each.shape for each in args[:3]))  # type: ignore[no-untyped-call]
            self.macs += flops // (4 if causal else 2)
        elif packet in flop_registry:
            self.macs += flop_registry[packet](*args, **kwargs, out_val=out) // 2
        self._note(func, packet, args, kwargs, out)
        return out

    def _note(self, func: Any, packet: Any, args: Any, kwargs: Any, out: Any) -> None:
        if func.is_view or packet in _FORM_ONLY or func.namespace == "prim":
            return
        if packet in _COPIES and _storage(args[0]) in self.origin:
            if _storage(out) not in self.origin:
                self.origin[_storage(out)] = self.origin[_storage(args[0])]
                self.alive.append(out)
            return
        tensors = [each for each in tree_iter((args, kwargs)) if isinstance(each, torch.Tensor)]
        if packet in _SCATTERS:
            target, *tensors = tensors
            written = args[_SCATTERS[packet]] if len(args) > _SCATTERS[packet] else None
            size = written.numel() if isinstance(written, torch.Tensor) else target.numel()
            self._touch(target, size * target.element_size())
            if not func._schema.is_mutable:
                self._see(target)
        elif packet in _GATHERS:
            source, *tensors = tensors
            self._see(source, out.numel(), once=False)
        elif func._schema.is_mutable:
            self._touch(tensors[0], tensors[0].numel() * tensors[0].element_size())
        for tensor in tensors:
            self._see(tensor)

    def _see(self, tensor: torch.Tensor, elements: int | None = None, once: bool = True) -> None:
        name = self.origin.get(_storage(tensor))
        if name is None:
            return
        size = math.prod(length for length, step in zip(tensor.shape, tensor.stride(), strict=True) if step)
        seen = self.read.setdefault(name, {})
        view: object = (_storage(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        seen[view if once else len(seen)] = size if elements is None else min(size, elements)

    def _touch(self, tensor: torch.Tensor, size: int) -> None:
        place = _storage(tensor)
        if place in self.own:
            self.touched[place] = self.touched.get(place, 0) + size

    def bytes_read(self, returned: list[torch.Tensor], in_full: bool) -> dict[str, int]:
        """By input. A copy that is returned was read; an input that is returned itself was not."""
        for tensor in returned:
            if _storage(tensor) not in self.own:
                self._see(tensor)
        found = {}
        for name, tensor in self.inputs.items():
            seen = sum(self.read.get(name, {}).values())
            elements = tensor.numel() if seen and in_full else min(seen, tensor.numel())
            found[name] = elements * tensor.element_size()
        return found

    def bytes_written(self, output: torch.Tensor | None, declared: int) -> int:
        if output is None or _storage(output) not in self.touched:
            return declared
        return min(self.touched[_storage(output)], declared)


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
