"""Entry of a launch: calls the candidate's solutions on tensors that the lab lays into shared memory.

It holds the candidate's code and no reference, no expected output and no seed. Each message is JSON; inputs and outputs
lie in memory files whose descriptors come along. The lab's clock runs outside, around the message `call`.

    load    PROBLEM                           imports its solution
    inputs  sets of tensors and scalars       maps them; each set is called once
    call                                      run(*inputs) on every set; the outputs stay here
    fetch   where each output belongs         copies the outputs of every set into the file
    drop                                      lets go of everything that the batch held

A reply holds `wrong` where the outputs are not those that the problem has; what the candidate raises ends the process.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import inside_call
import torch

MOST = 1 << 20  # bytes of a message
Message = dict[str, Any]


class Wrong(Exception):
    """The outputs have not the form that the problem asks for."""


class Launch:
    def __init__(self) -> None:
        self.solutions: dict[str, Callable[..., object]] = {}
        self.sets: list[list[object]] = []
        self.returned: list[object] = []

    def load(self, message: Message, descriptor: int | None) -> None:
        problem = message["problem"]
        path = Path(inside_call.repo) / problem / "solution.py"
        if not path.is_file():
            raise Wrong(f"there is no {problem}/solution.py")
        spec = importlib.util.spec_from_file_location(f"solution_{len(self.solutions)}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        run = getattr(module, "run", None)
        if not callable(run):
            raise Wrong(f"{problem}/solution.py has no function run")
        self.solutions[problem] = run

    def inputs(self, message: Message, descriptor: int | None) -> None:
        stride, places = message["stride"], message["places"]
        memory = mapped(descriptor, stride * len(message["scalars"]))
        for number, scalars in enumerate(message["scalars"]):
            left = iter(scalars)
            self.sets.append([
                tensor(memory, place, number * stride) if "offset" in place else next(left) for place in places
            ])  # fmt: skip

    def call(self, message: Message, descriptor: int | None) -> None:
        run, returned = self.solutions[message["problem"]], []
        with torch.no_grad():
            for one in self.sets:
                returned.append(run(*one))  # noqa: PERF401  each stays until the last has run
        self.returned = returned

    def fetch(self, message: Message, descriptor: int | None) -> None:
        stride, places = message["stride"], message["places"]
        memory = mapped(descriptor, stride * len(self.returned))
        for number, returned in enumerate(self.returned):
            found = by_name(returned, [place["name"] for place in places])
            for place in places:
                tensor(memory, place, number * stride).copy_(checked(found[place["name"]], place))

    def drop(self, message: Message, descriptor: int | None) -> None:
        self.sets, self.returned = [], []


def mapped(descriptor: int | None, size: int) -> mmap.mmap:
    """Tensors keep it alive. Populated: no call is to fault it in."""
    assert descriptor is not None
    return mmap.mmap(descriptor, max(size, 1), mmap.MAP_SHARED | mmap.MAP_POPULATE)


def tensor(memory: mmap.mmap, place: Mapping[str, Any], start: int) -> torch.Tensor:
    """The tensor that lies at a place of the set that begins at `start`."""
    dtype, shape = getattr(torch, place["dtype"]), place["shape"]
    count = 1
    for extent in shape:
        count *= extent
    if not count:
        return torch.empty(shape, dtype=dtype)
    raw = torch.frombuffer(memory, dtype=torch.uint8, count=count * dtype.itemsize, offset=start + place["offset"])
    return raw.view(dtype).view(shape)


def by_name(returned: object, names: Sequence[str]) -> Mapping[str, object]:
    if isinstance(returned, dict):
        if missing := [name for name in names if name not in returned]:
            raise Wrong(f"the output {missing[0]} is missing")
        return returned
    values = list(returned) if isinstance(returned, tuple | list) else [returned]
    if len(values) != len(names):
        raise Wrong(f"{len(values)} outputs; the problem has {len(names)}: {', '.join(names)}")
    return dict(zip(names, values, strict=True))


def checked(output: object, place: Mapping[str, Any]) -> torch.Tensor:
    name, dtype, shape = place["name"], getattr(torch, place["dtype"]), tuple(place["shape"])
    if isinstance(output, int | float):
        output = torch.tensor(output, dtype=dtype)
    if type(output) is not torch.Tensor:
        raise Wrong(f"{name} is a {type(output).__name__}, not a tensor")
    if tuple(output.shape) != shape:
        raise Wrong(f"{name} has the shape {tuple(output.shape)}, not {shape}")
    if output.dtype != dtype:
        raise Wrong(f"{name} is {output.dtype}, not {dtype}")
    return output


def answer(launch: Launch, message: Message, descriptor: int | None) -> Message:
    try:
        getattr(launch, message["op"])(message, descriptor)
        return {}
    except Wrong as wrong:
        return {"wrong": str(wrong)[:500]}


def keep_memory() -> None:
    """Let glibc keep what is freed: else every call would have the kernel clear the pages of its results anew.

    The judge does the same.
    """
    libc = ctypes.CDLL(None)
    for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        libc.mallopt(option, value)


def main() -> None:
    keep_memory()
    launch, channel = Launch(), socket.socket(fileno=inside_call.fds["channel"])
    while True:
        content, descriptors, _, _ = socket.recv_fds(channel, MOST, 1)
        if not content:
            return
        descriptor = descriptors[0] if descriptors else None
        message = json.loads(content)
        reply = answer(launch, message, descriptor) | {"id": message["id"]}
        if descriptor is not None:
            os.close(descriptor)
        channel.send(json.dumps(reply).encode())
