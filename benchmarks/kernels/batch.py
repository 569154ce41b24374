"""The judge's side of one batch: sets of inputs in memory that the candidate maps, and the outputs that belong to them.

On a CPU the judge keeps inputs of its own and lays copies into the shared memory. On a GPU, whose memory is scarce, its
references read the shared inputs; a digest tells before they do whether somebody wrote there.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.judge_device import Shared
from benchmarks.kernels.formats.workload import Problem, Workload
from benchmarks.kernels.inside.calls import at
from benchmarks.kernels.reference import Value

ALIGNMENT = 256  # bytes
CHUNK = 8 << 20  # words that a digest takes at a time
_WEIGHTS = (0, 1 << 62)

Places = list[dict[str, Any]]


class Layout:
    """Where each tensor of a set lies, dense, from the set's beginning; the next set begins `stride` bytes further."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.places: Places = []
        self.stride = 0
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                dtype = str(value.dtype).removeprefix("torch.")
                place = {"name": name, "dtype": dtype, "shape": list(value.shape), "offset": self.stride}
                self.places.append(place)
                self.stride = _aligned(self.stride + value.numel() * value.element_size())
            else:
                self.places.append({"name": name})

    def put(self, values: Mapping[str, Value], memory: torch.Tensor, number: int) -> dict[str, Value]:
        """Copy the tensors of a set to where they belong; the set as it lies there."""
        there = dict(values)
        for place in self.places:
            if isinstance(value := values[place["name"]], torch.Tensor):
                there[place["name"]] = at(memory, place, number * self.stride).copy_(value)
        return there

    def get(self, memory: torch.Tensor, number: int) -> dict[str, torch.Tensor]:
        """The tensors of a set, copied: nobody else can write to them."""
        return {place["name"]: at(memory, place, number * self.stride).clone() for place in self.places}


class Batch:
    """[sets] of inputs by name; `outputs` are the reference's, `room` is for the candidate's."""

    def __init__(self, problem: Problem, workload: Workload, layout: Layout, inputs: Shared) -> None:
        self.problem, self.workload = problem, workload
        self.layout, self.inputs = layout, inputs
        self.sets: list[Mapping[str, Value]] = []
        self.outputs: list[dict[str, torch.Tensor]] = []
        self.room: Shared | None = None
        self.written = b""  # the digest of the inputs
        self.touched = False  # somebody else wrote to them

    def add(self, one: Mapping[str, Value]) -> None:
        there = self.layout.put(one, self.inputs.bytes, len(self.sets))
        self.sets.append(one if self.inputs.bytes.device.type == "cpu" else there)

    @property
    def scalars(self) -> list[list[Value]]:
        return [[value for value in one.values() if not isinstance(value, torch.Tensor)] for one in self.sets]

    def close(self) -> None:
        self.sets, self.outputs = [], []
        self.inputs.close()
        if self.room is not None:
            self.room.close()


def copying(outputs: Sequence[Mapping[str, torch.Tensor]], layout: Layout, device: torch.device) -> float:
    """Seconds to copy all outputs into shared memory, as a candidate has to.

    On a CPU they are CPU seconds, and those for mapping the memory are among them.
    """
    size = layout.stride * len(outputs)
    if device.type == "cpu":
        began = time.process_time()
        room = Shared(size, device)
    else:
        room = Shared(size, device)
        torch.cuda.synchronize(device)
        began = time.perf_counter()
    for number, one in enumerate(outputs):
        layout.put(one, room.bytes, number)
    if device.type == "cpu":
        seconds = time.process_time() - began
    else:
        torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
    room.close()
    return seconds


class Digest:
    """Tells whether memory holds what it held. Its weights are drawn anew in each process: nobody can aim at one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._weights: torch.Tensor | None = None

    def of(self, memory: Shared) -> bytes:
        if self._device.type == "cpu":
            return hashlib.blake2b(memory.bytes.numpy().data, digest_size=16).digest()
        if self._weights is None:
            own = torch.Generator(self._device)
            own.manual_seed(random.SystemRandom().getrandbits(63))
            self._weights = torch.randint(*_WEIGHTS, (CHUNK,), generator=own, device=self._device) | 1
        total = torch.zeros((), dtype=torch.int64, device=self._device)
        for number, words in enumerate(torch.split(memory.bytes.view(torch.int64), CHUNK)):
            total += (words * self._weights[: len(words)]).sum() * (2 * number + 1)
        return int(total.item()).to_bytes(8, "big", signed=True)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
