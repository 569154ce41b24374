"""How sets of inputs lie in shared memory, and how they are called under a stopwatch. Runs on both sides of the border.

The judge calls a reference by the same lines by which the sandbox calls a solution, so both are held up alike. Beside
untrusted code nothing of it is trusted: the clock that counts is the worker's, and the judge looks at the pads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

FACTOR = 1664525
PAGE = 2 << 20  # bytes, of a device
KEPT = 8 << 30  # bytes that torch may keep of a device while nobody uses them: the other side may need them


def at(memory: torch.Tensor, place: Mapping[str, Any], start: int) -> torch.Tensor:
    """The tensor that lies at a place of the set that begins at `start` of `memory`, uint8 [bytes]."""
    dtype, shape = getattr(torch, place["dtype"]), place["shape"]
    count = 1
    for extent in shape:
        count *= extent
    if not count:
        return torch.empty(shape, dtype=dtype, device=memory.device)
    begin = start + place["offset"]
    return memory[begin : begin + count * dtype.itemsize].view(dtype).view(shape)


class Keys:
    """Of so many passes: `words` int32 [passes], and each of them by itself."""

    def __init__(self, words: torch.Tensor) -> None:
        self.words, self.each = words, list(words.unbind())

    def unseal(self, key: int) -> None:
        torch.bitwise_xor(self.words, key, out=self.words)


class Pads:
    """Passes over memory that no cache holds: what lay in the caches before is gone after them.

    While they are under way the host gets ahead of the device, so that the launches of calls do not count. A pass takes
    every word x of one half to FACTOR * x + key: only who has made all passes knows the words. The halves take turns,
    so that nothing of a pass lies in a cache when the next one begins.
    """

    def __init__(self, memory: torch.Tensor) -> None:
        self.words = memory.view(torch.int32)
        self._halves = self.words.chunk(2)
        self._turn = 0

    def keys(self, values: Sequence[int]) -> Keys:
        """Of each pass the key; the first one goes over the first half."""
        self._turn = 0
        return Keys(torch.tensor(values, dtype=torch.int32, device=self.words.device))

    def run(self, keys: Sequence[torch.Tensor]) -> None:
        """Each of `keys` is that of one pass, on the device."""
        for key in keys:
            words = self._halves[self._turn]
            torch.add(key, words, alpha=FACTOR, out=words)
            self._turn = 1 - self._turn


def after(words: tuple[int, int], keys: Sequence[int]) -> tuple[int, int]:
    """What the words of either half are after passes with these keys, as int32."""
    found = list(words)
    for number, key in enumerate(keys):
        found[number % 2] = (FACTOR * found[number % 2] + key) & 0xFFFFFFFF
    first, second = (value - (1 << 32) if value >> 31 else value for value in found)
    return first, second


def seal(memory: torch.Tensor, key: int, into: torch.Tensor | None = None) -> None:
    """Make inputs unreadable to who does not know the key, or readable again; uint8 [bytes], whole words."""
    words = memory.view(torch.int32)
    torch.bitwise_xor(words, key, out=words if into is None else into.view(torch.int32))


def touch(memory: torch.Tensor) -> None:
    """Read one byte of each page of the device: who calls next does not wait until it is found."""
    if memory.device.type == "cuda":
        memory[::PAGE].sum()


def make_room(device: torch.device) -> None:
    """Give a device back what torch keeps of it, where that is much."""
    if device.type == "cuda" and torch.cuda.memory_reserved() - torch.cuda.memory_allocated() > KEPT:
        torch.cuda.empty_cache()


@dataclass
class Queued:
    """What calls returned, the seconds of all by the clock of the device, and those the host took to start them."""

    returned: list[object]
    span: float
    launched: float


def queued(
    run: Callable[..., object], sets: Sequence[Sequence[object]], pads: Pads, keys: Keys, sweeps: int,
    unseal: Callable[[], object], synchronize: Callable[[], object], audit: int, look: Callable[[object], object],
) -> Queued:  # fmt: skip
    """Call `run` on every set, in line behind the pads, so that the device never waits for the host.

    The inputs are unsealed before the last `sweeps` passes: no cache holds them, and nobody has read them before.
    Behind the call number `audit` comes `look(returned)`. All that was given to the device is done when this returns.
    """
    span, looking = Span(pads.words.device), Span(pads.words.device)
    ahead = len(keys.each) - sweeps
    pads.run(keys.each[:ahead])
    unseal()
    pads.run(keys.each[ahead:])
    span.begin()
    began, returned = time.perf_counter(), []
    for number, one in enumerate(sets):
        returned.append(run(*one))
        if number == audit:
            looking.begin()
            look(returned[-1])
            looking.end()
    launched = time.perf_counter() - began
    span.end()
    synchronize()
    looked = looking.seconds() if 0 <= audit < len(sets) else 0.0
    return Queued(returned, span.seconds() - looked, launched)


def wake(device: torch.device) -> None:
    """What comes before calls, in small: a processor and a device that did not do it for a while need longer for it."""
    memory = torch.zeros(64, dtype=torch.uint8, device=device)
    pads = Pads(memory)
    pads.run(pads.keys([0, 0, 0]).each)
    seal(memory, 1)


class Span:
    """A pair of events; a stopwatch where the device is the host."""

    def __init__(self, device: torch.device) -> None:
        self._events: tuple[Any, Any] | None = (_event(), _event()) if device.type == "cuda" else None
        self._time = 0.0

    def begin(self) -> None:
        if self._events:
            self._events[0].record()
        else:
            self._time = time.perf_counter()

    def end(self) -> None:
        if self._events:
            self._events[1].record()
        else:
            self._time = time.perf_counter() - self._time

    def seconds(self) -> float:
        """When the device is idle."""
        return 1e-3 * float(self._events[0].elapsed_time(self._events[1])) if self._events else self._time


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
