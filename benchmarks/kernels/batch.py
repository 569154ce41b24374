"""The judge's side of one batch: sets of inputs in memory that the candidate maps, and the outputs that belong to them.

The judge keeps inputs of its own and lays copies into the shared memory, sealed under a stopwatch. Of very large ones
there is one copy alone, which references read, too: a digest tells whether somebody wrote there before.
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
from benchmarks.kernels.inside.calls import at, seal
from benchmarks.kernels.reference import Value

ALIGNMENT = 256  # bytes
CHUNK = 8 << 20  # words that a digest takes at a time
OWN_BYTES = 8 << 30  # of inputs: more are kept once
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

    def __init__(self, problem: Problem, workload: Workload, layout: Layout, sets: int, inputs: Shared) -> None:
        """`inputs`: room for that many sets, or more: devices hand out whole pages."""
        self.problem, self.workload = problem, workload
        self.layout, self.inputs = layout, inputs
        self.theirs = inputs.bytes[: sets * layout.stride]
        self.shares = len(self.theirs) > OWN_BYTES  # the inputs are kept once
        self.own = self.theirs if self.shares else torch.empty_like(self.theirs)
        self.sets: list[Mapping[str, Value]] = []
        self.outputs: list[dict[str, torch.Tensor]] = []
        self.room: Shared | None = None
        self.key = 0  # by which the candidate's inputs are sealed
        self.written = b""  # the digest of the inputs
        self.touched = False  # somebody else wrote to them

    def add(self, one: Mapping[str, Value]) -> None:
        self.sets.append(self.layout.put(one, self.own, len(self.sets)))

    def show(self, key: int) -> None:
        """Lay the sets where the candidate finds them, sealed from the first moment; unless there is one copy alone."""
        self.key = 0 if self.shares else key
        if not self.shares:
            seal(self.own, self.key, self.theirs)

    @property
    def scalars(self) -> list[list[Value]]:
        return [[value for value in one.values() if not isinstance(value, torch.Tensor)] for one in self.sets]

    def close(self) -> None:
        """The memory of the inputs stays."""
        self.sets, self.outputs = [], []
        del self.own, self.theirs
        if self.room is not None:
            self.room.close()


def copying(outputs: Sequence[Mapping[str, torch.Tensor]], layout: Layout) -> float:
    """CPU seconds to map shared memory and copy all outputs there, as a candidate has to."""
    began = time.process_time()
    room = Shared(layout.stride * len(outputs), torch.device("cpu"))
    for number, one in enumerate(outputs):
        layout.put(one, room.bytes, number)
    seconds = time.process_time() - began
    room.close()
    return seconds


class Digest:
    """Tells whether memory holds what it held. Its weights are drawn anew in each process: nobody can aim at one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._weights: torch.Tensor | None = None

    def of(self, memory: torch.Tensor) -> bytes:
        if self._device.type == "cpu":
            return hashlib.blake2b(memory.numpy().data, digest_size=16).digest()
        if self._weights is None:
            own = torch.Generator(self._device)
            own.manual_seed(random.SystemRandom().getrandbits(63))
            self._weights = torch.randint(*_WEIGHTS, (CHUNK,), generator=own, device=self._device) | 1
        total = torch.zeros((), dtype=torch.int64, device=self._device)
        for number, words in enumerate(torch.split(memory.view(torch.int64), CHUNK)):
            total += (words * self._weights[: len(words)]).sum() * (2 * number + 1)
        return int(total.item()).to_bytes(8, "big", signed=True)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
