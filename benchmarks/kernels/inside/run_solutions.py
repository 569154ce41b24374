"""Entry of a launch: calls the candidate's solutions on tensors that the judge lays into shared memory.

It holds the candidate's code and no reference, no expected output and no seed. Each message is JSON; the memory of
inputs, outputs and pads comes along as a descriptor. The lab's clock runs outside, around `call`.

    load    PROBLEM                           imports its solution
    listen  memory                            what is watched for orders under a stopwatch
    pads    memory                            what is passed over before calls under a stopwatch
    inputs  sets of tensors and scalars       maps them; each set is called once
    outputs where each output belongs         maps their memory; under a stopwatch also the keys of all passes, sealed
    wake                                      what comes before calls, in small
    rest                                      a call of no set at all
    call                                      run(*inputs) on every set, or on those of a part; the outputs stay here
    fetch                                     copies the outputs of every set to where they belong
    tell                                      what the calls took, by the candidate's own clocks
    drop                                      lets go of everything that the batch held

A message of `orders` is answered at once, and each of them done when the bell rings for it. A reply holds `wrong` where
the outputs are not those that the problem has; what the candidate raises ends the process.
"""

from __future__ import annotations

import ctypes
import gc
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
from bell import Bell
from calls import Keys, Pads, at, make_room, queued, seal, touch, wake

MOST = 1 << 20  # bytes of a message
Message = dict[str, Any]


class Wrong(Exception):
    """The outputs have not the form that the problem asks for."""


class Memory:
    """Memory of the judge; `bytes` is uint8 [size] on the device."""

    def __init__(self, descriptor: int | None, size: int, driver: Any) -> None:
        assert descriptor is not None
        self._driver, self._attached = driver, None
        if driver is None:  # populated: no call is to fault it in
            mapped = mmap.mmap(descriptor, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
            self.bytes = torch.frombuffer(mapped, dtype=torch.uint8)
        else:
            self._attached = driver.attach(descriptor, size)
            self.bytes = torch.as_tensor(self._attached, device="cuda")

    def close(self) -> None:
        """What still lies in it must not be touched any more."""
        del self.bytes
        if self._attached is not None:
            self._driver.free(self._attached)


class Launch:
    def __init__(self, driver: Any = None) -> None:
        """`driver`: that of the GPU; None on a CPU."""
        self.driver = driver
        self.synchronize = (lambda: None) if driver is None else driver.synchronize
        self.reset_persisting = resets(driver)
        self.solutions: dict[str, Callable[..., object]] = {}
        self.pads_of: Pads | None = None
        self.keys: Keys | None = None
        self.bell: Bell | None = None
        self.sealed = torch.empty(0, dtype=torch.uint8)  # the memory of all inputs
        self.told: Message = {}  # of the calls: seconds by the clock of the device, and of the host to start them
        self.memory: list[Memory] = []
        self.sets: list[list[object]] = []
        self.places: list[Mapping[str, Any]] = []  # of the outputs
        self.stride = 0
        self.into: torch.Tensor | None = None
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

    def listen(self, message: Message, descriptor: int | None) -> None:
        assert descriptor is not None
        self.bell = Bell(descriptor)

    def pads(self, message: Message, descriptor: int | None) -> None:
        self.pads_of = Pads(Memory(descriptor, message["size"], self.driver).bytes)

    def inputs(self, message: Message, descriptor: int | None) -> None:
        stride, places, memory = message["stride"], message["places"], self._map(message, descriptor)
        for number, scalars in enumerate(message["scalars"]):
            left = iter(scalars)
            self.sets.append([
                at(memory, place, number * stride) if "offset" in place else next(left) for place in places
            ])  # fmt: skip
        self.sealed = memory[: len(self.sets) * stride]

    def outputs(self, message: Message, descriptor: int | None) -> None:
        self.into = self._map(message, descriptor)
        self.places, self.stride = message["places"], message["stride"]
        if self.pads_of is not None:
            self.keys = self.pads_of.keys(message["keys"])
            self.synchronize()

    def call(self, message: Message, descriptor: int | None) -> None:
        """With `audit`: behind pads, and the outputs of the call of that number copied right behind it.

        Without a problem: what it takes with nothing called.
        """
        run = self.solutions[message["problem"]] if "problem" in message else self.blank
        with torch.no_grad():
            if "audit" in message:
                assert self.keys is not None
                self._queued(run, self.sets, self.keys, message)
            else:
                self.returned = [run(*one) for one in self.sets]

    def wake(self, message: Message, descriptor: int | None) -> None:
        assert self.pads_of is not None
        wake(self.pads_of.words.device)
        self.synchronize()

    def rest(self, message: Message, descriptor: int | None) -> None:
        assert self.pads_of is not None
        nothing = self.pads_of.keys([])
        with torch.no_grad():
            self._queued(self.blank, [], nothing, {**message, "sweeps": 0, "audit": -1, "sealed": False})

    def _queued(self, run: Callable[..., object], sets: list[list[object]], keys: Keys, message: Message) -> None:
        assert self.pads_of is not None
        place, key = len(self.sets) if len(self.sets) > 1 else 0, message["key"]
        keys.unseal(key)

        def unseal() -> None:
            if message["sealed"]:
                seal(self.sealed, key)

        def look(returned: object) -> None:
            self._copy(returned, place)

        self.reset_persisting()
        sweeps, audit = message["sweeps"], message["audit"]
        done = queued(run, sets, self.pads_of, keys, sweeps, unseal, self.synchronize, audit, look)
        self.returned, self.told = done.returned, {"span": done.span, "launched": done.launched}

    def blank(self, *_: object) -> dict[str, torch.Tensor]:
        """Outputs that nothing was written to."""
        assert self.into is not None
        return {
            place["name"]: torch.empty(place["shape"], dtype=getattr(torch, place["dtype"]), device=self.into.device)
            for place in self.places
        }

    def fetch(self, message: Message, descriptor: int | None) -> None:
        if descriptor is not None:
            self.outputs(message, descriptor)
        for number, returned in enumerate(self.returned):
            self._copy(returned, number)
        self.synchronize()

    def tell(self, message: Message, descriptor: int | None) -> Message:
        return self.told

    def drop(self, message: Message, descriptor: int | None) -> None:
        self.sets, self.returned, self.into, self.keys = [], [], None, None
        self.sealed = torch.empty(0, dtype=torch.uint8)
        for memory in self.memory:
            memory.close()
        self.memory = []
        if self.pads_of is not None:
            make_room(self.pads_of.words.device)

    def _map(self, message: Message, descriptor: int | None) -> torch.Tensor:
        self.memory.append(Memory(descriptor, message["size"], self.driver))
        touch(self.memory[-1].bytes)
        return self.memory[-1].bytes

    def _copy(self, returned: object, number: int) -> None:
        assert self.into is not None
        found = by_name(returned, [place["name"] for place in self.places])
        for place in self.places:
            at(self.into, place, number * self.stride).copy_(checked(found[place["name"]], place))


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
        return getattr(launch, message["op"])(message, descriptor) or {}
    except Wrong as wrong:
        return {"wrong": str(wrong)[:500]}


def follow(launch: Launch, message: Message) -> None:
    """Do what each of the orders says when it is given; what was wrong with one is told later."""
    assert launch.bell is not None
    gc.disable()  # a collection would be timed
    for number, op in enumerate(message["orders"], message["first"]):
        key = launch.bell.heard(number)
        reply = answer(launch, {**message, "op": op, "key": key}, None)
        launch.bell.answer(number)
        launch.told = reply or launch.told
    gc.enable()


def resets(driver: Any) -> Callable[[], None]:
    """Lets nothing stay in the L2 cache for longer than the rest, where the device can keep something there at all."""
    if driver is None:
        return lambda: None
    try:
        driver.reset_persisting()
    except OSError:
        return lambda: None
    reset: Callable[[], None] = driver.reset_persisting
    return reset


def gpu_driver() -> Any:
    """Of the lab, by its path: another package may be named `cuda`, and a candidate's file, too."""
    path = Path(inside_call.__file__).with_name("cuda.py")
    spec = importlib.util.spec_from_file_location("lab_cuda", path)
    assert spec is not None and spec.loader is not None
    driver = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = driver  # its dataclasses ask for it
    spec.loader.exec_module(driver)
    return driver.Device()


def keep_memory() -> None:
    """Let glibc keep what is freed: else every call would have the kernel clear the pages of its results anew.

    The judge does the same.
    """
    libc = ctypes.CDLL(None)
    for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        libc.mallopt(option, value)


def main() -> None:
    keep_memory()
    channel = socket.socket(fileno=inside_call.fds["channel"])
    launch = Launch(gpu_driver() if inside_call.args.get("device") == "cuda" else None)
    while True:
        content, descriptors, _, _ = socket.recv_fds(channel, MOST, 1)
        if not content:
            return
        descriptor = descriptors[0] if descriptors else None
        message = json.loads(content)
        reply = {} if "orders" in message else answer(launch, message, descriptor)
        reply |= {"id": message["id"]}
        if descriptor is not None:
            os.close(descriptor)
        channel.send(json.dumps(reply).encode())
        if "orders" in message:
            follow(launch, message)
