"""How sets of inputs lie in shared memory, and how they are called under a stopwatch. Runs on both sides of the border.

The judge calls a reference by the same lines by which the sandbox calls a solution, so both are held up alike. Beside
untrusted code nothing of it is trusted: the clock that counts is the worker's, and the judge looks at the pads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

FACTOR = 1664525


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


class Pads:
    """Passes over memory that no cache holds: what was called before has left the caches when the next call begins.

    While a pass is under way the host gets ahead of the device, so that a call's launches do not count. A pass takes
    every word x to FACTOR * x + key: only who has made all passes knows the words.
    """

    def __init__(self, memory: torch.Tensor) -> None:
        self.words = memory.view(torch.int32)

    def keys(self, values: Sequence[Sequence[int]]) -> list[list[torch.Tensor]]:
        """Of each call the keys of its passes, on the device."""
        found = torch.tensor(values, dtype=torch.int32, device=self.words.device)
        return [list(row.unbind()) for row in found]

    def run(self, keys: Sequence[torch.Tensor]) -> None:
        for key in keys:
            torch.add(key, self.words, alpha=FACTOR, out=self.words)


def after(value: int, keys: Sequence[Sequence[int]]) -> int:
    """What a word is after the passes of several calls, as an int32."""
    for of_one in keys:
        for key in of_one:
            value = (FACTOR * value + key) & 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def paced(
    run: Callable[..., object], sets: Sequence[Sequence[object]], pads: Pads, keys: Sequence[Sequence[torch.Tensor]],
    synchronize: Callable[[], object], look: Callable[[int, object], None],
) -> tuple[list[object], list[float]]:  # fmt: skip
    """Call `run` on every set, each after its pads and alone on the device.

    `look(number, returned)` is called as soon as a call is over. Returns what all calls returned, and the seconds of
    each by the clock of the device.
    """
    span = Spans(len(sets), pads.words.device)
    returned = []
    for number, (one, of_one) in enumerate(zip(sets, keys, strict=True)):
        pads.run(of_one)
        span.begin(number)
        returned.append(run(*one))
        span.end(number)
        synchronize()
        look(number, returned[-1])
    return returned, span.seconds()


class Spans:
    """A pair of events for each call; a stopwatch where the device is the host."""

    def __init__(self, count: int, device: torch.device) -> None:
        self._events: list[tuple[Any, Any]] = []
        if device.type == "cuda":
            self._events = [(_event(), _event()) for _ in range(count)]
        self._times = [0.0] * count

    def begin(self, number: int) -> None:
        if self._events:
            self._events[number][0].record()
        else:
            self._times[number] = time.perf_counter()

    def end(self, number: int) -> None:
        if self._events:
            self._events[number][1].record()
        else:
            self._times[number] = time.perf_counter() - self._times[number]

    def seconds(self) -> list[float]:
        """When all calls are over."""
        if self._events:
            return [1e-3 * begin.elapsed_time(end) for begin, end in self._events]
        return self._times


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
