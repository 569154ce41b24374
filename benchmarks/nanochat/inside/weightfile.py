"""The weights of a model as a safetensors file in shared memory: written by `harness`, read by the FORWARD steps.

Standard library and torch only; runs in the sandbox. A candidate prepares the memory before its clock starts, pinned
where there is a GPU; handing in is then one copy from the device and a seal, after which nobody can change a byte and
the parent takes the memory itself. Source of the format: the safetensors project's description of its file format.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import struct
import sys
from typing import Any

import torch

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
TYPES = {name: dtype for dtype, name in NAMES.items()}
Shape = tuple[str, torch.dtype, tuple[int, ...]]


class Reserved:
    """A memory file of the right size, header written, mapped, with a tensor over the place of each weight."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.shapes = shapes_of(state)
        header, places, size = _layout(self.shapes)
        self.descriptor = os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, size)
        self._map = mmap.mmap(self.descriptor, size)
        self._map[: len(header)] = header
        whole = torch.frombuffer(self._map, dtype=torch.uint8)
        self._places = {
            name: whole[at : at + _bytes(dtype, shape)].view(dtype).view(shape)
            for (name, dtype, shape), at in zip(self.shapes, places, strict=True)
        }
        self._pinned = _pin(whole) if any(value.is_cuda for value in state.values()) else 0

    def fill(self, state: dict[str, Any]) -> None:
        """Copy every weight to its place, from the device all at once."""
        for name, place in self._places.items():
            place.copy_(state[name].detach(), non_blocking=True)
        if any(value.is_cuda for value in state.values()):
            torch.cuda.synchronize()

    def seal(self) -> int:
        """Nothing can change it from here on. Returns the descriptor, which the caller closes.

        Where the kernel still sees a pinned page it refuses the seal, and the parent then copies.
        """
        if self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._pinned)  # type: ignore[no-untyped-call]
        self._places.clear()
        self._map.close()
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, SEALS)
        except OSError as refused:
            print(f"weights are handed in unsealed: {refused}", file=sys.stderr)
        return self.descriptor


def shapes_of(state: dict[str, Any]) -> list[Shape]:
    """Names, types and shapes, the widest types first, so that each value lies at a multiple of its size."""
    found = [(name, value.dtype, tuple(value.shape)) for name, value in state.items()]
    return sorted(found, key=lambda shape: -shape[1].itemsize)


def read(descriptor: int) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, as views into a private mapping of it. Raises ValueError, KeyError."""
    mapped = mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    (size,) = struct.unpack_from("<Q", mapped)
    if not 2 <= size <= len(mapped) - 8:
        raise ValueError("the weights are no safetensors file")
    header = json.loads(mapped[8 : 8 + size])
    header.pop("__metadata__", None)
    state = {}
    for name, about in header.items():
        dtype, shape, (begin, end) = TYPES[about["dtype"]], tuple(about["shape"]), about["data_offsets"]
        count = math.prod(shape)
        if min(shape, default=0) < 0 or end - begin != count * dtype.itemsize or not 0 <= begin <= end:
            raise ValueError(f"the weights' header says nonsense of {name}")
        if 8 + size + end > len(mapped):
            raise ValueError(f"the weights end before {name} does")
        state[name] = (
            torch.frombuffer(mapped, dtype=dtype, count=count, offset=8 + size + begin).view(shape)
            if count
            else torch.empty(shape, dtype=dtype)
        )
    return state


def _layout(shapes: list[Shape]) -> tuple[bytes, list[int], int]:
    """The header with its length before it, where each tensor begins in the file, and how long the file is."""
    about, begins, at = {}, [], 0
    for name, dtype, shape in shapes:
        end = at + _bytes(dtype, shape)
        about[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [at, end]}
        begins.append(at)
        at = end
    text = json.dumps(about).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    return struct.pack("<Q", len(text)) + text, [start + begin for begin in begins], start + at


def _bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize


def _pin(whole: torch.Tensor) -> int:
    """Let the device copy straight into this memory. Returns its address, 0 where the driver refuses."""
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    if int(runtime.cudaHostRegister(whole.data_ptr(), whole.numel(), 0)):
        print("the memory for the weights could not be pinned", file=sys.stderr)
        return 0
    return whole.data_ptr()
