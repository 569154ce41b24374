"""A definition's reference, executed: its outputs, and the inputs that its own generator makes.

This runs code from the problem's files in the calling process: for problems whose author is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from benchmarks.kernels.formats.definition import Definition

DTYPES: Mapping[str, torch.dtype] = {
    "float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2, "int64": torch.int64,
    "int32": torch.int32, "int16": torch.int16, "int8": torch.int8, "bool": torch.bool,
}  # fmt: skip

FAULTS = (  # of code of strangers; the device's memory is a RuntimeError, the machine's is nobody's fault here
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, RuntimeError, SyntaxError,
    TypeError, ValueError,
)  # fmt: skip

Value = torch.Tensor | int | float | bool


class ReferenceFailed(RuntimeError):
    """A reference or generator that does not keep the definition's promise; one line."""


def torch_dtype(name: str) -> torch.dtype:
    if name in DTYPES:
        return DTYPES[name]
    found = getattr(torch, "float4_e2m1fn_x2", None)  # since torch 2.8
    if not isinstance(found, torch.dtype):
        raise ReferenceFailed(f"this torch ({torch.__version__}) has no {name}; install 2.8 or newer")
    return found


class CudaMeansCpu(TorchFunctionMode):
    """Lets a reference that hard-codes the device 'cuda' run on the CPU (two released problems do)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        moved = {name: _moved(value) for name, value in (kwargs or {}).items()}
        return func(*map(_moved, args), **moved)


def _moved(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    if isinstance(value, str) and value.partition(":")[0] == "cuda":
        return "cpu"
    return value


class Reference:
    """The loaded module of a definition, on one device."""

    def __init__(self, definition: Definition, device: torch.device | str) -> None:
        self.definition = definition
        self.device = torch.device(device)
        self.module = ModuleType("reference")
        self._names_cuda = self.device.type == "cpu" and "cuda" in definition.reference  # the mode slows every call
        with self._complaining("reference"):
            code = compile(definition.reference, f"<reference of {definition.name}>", "exec")
            exec(code, self.module.__dict__)

    def run(self, inputs: Mapping[str, Value], variant: Callable[..., object] | None = None) -> dict[str, torch.Tensor]:
        """Outputs by name, in the definition's order. `variant` is called instead of the definition's own `run`."""
        with self._complaining("run"), torch.no_grad():
            call = variant or self.module.run
            return normalized(call(*inputs.values()), self.definition, self.device)

    def generate(self, axes_and_scalars: Mapping[str, int | float | bool]) -> dict[str, Any]:
        """What the custom generator returns, by name."""
        entry = self.definition.custom_inputs_entrypoint
        if entry is None:
            raise ReferenceFailed(f"{self.definition.name}: names no generator; set custom_inputs_entrypoint")
        make: Callable[[dict[str, Any], torch.device], object] = getattr(self.module, entry)
        with self._complaining(entry):
            found = make(dict(axes_and_scalars), self.device)
        if not isinstance(found, dict):
            raise ReferenceFailed(f"{self.definition.name}: {entry} returned a {type(found).__name__}; return a dict")
        return found

    @contextmanager
    def _complaining(self, what: str) -> Iterator[None]:
        try:
            if self._names_cuda:
                with CudaMeansCpu():
                    yield
            else:
                yield
        except ReferenceFailed:
            raise
        except FAULTS as error:
            lines = str(error).splitlines() or [""]
            raise ReferenceFailed(f"{self.definition.name}: {what}: {type(error).__name__}: {lines[0]}") from error


def normalized(returned: object, definition: Definition, device: torch.device) -> dict[str, torch.Tensor]:
    """A tensor, scalar, sequence in order or dict by name, as tensors by name; scalars become 0-D."""
    names = list(definition.outputs)
    if isinstance(returned, dict):
        if missing := [name for name in names if name not in returned]:
            raise ReferenceFailed(f"{definition.name}: the outputs {missing} are missing; return all of {names}")
        values = [returned[name] for name in names]
    else:
        values = list(returned) if isinstance(returned, tuple | list) else [returned]
    if len(values) != len(names):
        raise ReferenceFailed(f"{definition.name}: returned {len(values)} outputs; return {names}")
    found = {}
    for name, value in zip(names, values, strict=True):
        if isinstance(value, int | float):
            value = torch.tensor(value, dtype=torch_dtype(definition.outputs[name].dtype), device=device)
        if not isinstance(value, torch.Tensor):
            raise ReferenceFailed(f"{definition.name}: {name} is a {type(value).__name__}; return a tensor")
        found[name] = value
    return found
