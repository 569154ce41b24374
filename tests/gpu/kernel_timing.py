"""How the benches of kernels measure: sizes, milliseconds by turns, memory, and errors against float64."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import triton
from torch import Tensor

Row = dict[str, object]
LARGEST_EXCESS = 1.5  # of the error that bfloat16 itself makes in the naive way


@dataclass(frozen=True)
class Size:
    """Of one step on one device, and how it is measured."""

    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16
    batch: int = 64
    length: int = 2048
    width: int = 512
    hidden: int = 2048
    vocabulary: int = 8192
    heads: int = 4
    layers: int = 8
    table_rows: int = 2**19
    checked: int = 1021  # rows that are compared with float64
    rounds: int = 20
    tune: bool = False
    text: Path | None = None  # a train.bin

    @property
    def count(self) -> int:
        return self.batch * self.length

    def drawn(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normal numbers, a leaf that wants its gradient."""
        return (scale * torch.randn(*shape, device=self.device)).to(self.dtype).requires_grad_()

    def tokens(self) -> Tensor:
        """[B, T] of the text, or drawn as words are in text: the nth most frequent with share 1 / (n + 2.7)."""
        if self.text is not None:
            read = np.fromfile(self.text, dtype="<u2", count=self.count)
            return torch.from_numpy(read.astype(np.int64)).to(self.device).view(self.batch, self.length)
        shares = 1 / (torch.arange(self.vocabulary, device=self.device) + 2.7)
        return torch.multinomial(shares, self.count, replacement=True).view(self.batch, self.length)


TINY = Size(
    device="cpu", dtype=torch.float32, batch=2, length=21, width=16, hidden=32, vocabulary=63,
    layers=2, table_rows=31, checked=13, rounds=1,
)  # fmt: skip


def compare(size: Size, arms: dict[str, Callable[[], object]]) -> dict[str, Row]:
    """Milliseconds of each arm, round by round in turn, and what memory it took above what was held before.

    In the interpreter the arms run once and no time is told: it would say nothing.
    """
    rows: dict[str, Row] = {}
    for name, arm in arms.items():
        try:
            rows[name] = {"peak_gb": _peak(size, arm)}
        except (RuntimeError, triton.TritonError) as error:
            rows[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
    if size.device == "cpu":
        return rows
    running = {name: arms[name] for name, row in rows.items() if "error" not in row}
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(size.rounds):
        for name, arm in running.items():
            seconds[name].append(_seconds(arm))
    for name, took in seconds.items():
        rows[name] |= {"ms": figure(1000 * statistics.median(took)), "ms_least": figure(1000 * min(took))}
    return rows


def _peak(size: Size, arm: Callable[[], object]) -> float:
    arm()  # compiles
    if size.device == "cpu":
        return 0.0
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    arm()
    torch.cuda.synchronize()
    return figure((torch.cuda.max_memory_allocated() - before) / 1e9)


def _seconds(arm: Callable[[], object]) -> float:
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    began.record()
    arm()
    ended.record()
    torch.cuda.synchronize()
    return began.elapsed_time(ended) / 1000


def figure(value: float) -> float:
    return float(f"{value:.4g}")


def there_and_back(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Forward and backward: the value and the gradients of all inputs, for a fixed gradient of the value."""
    of_value: list[Tensor] = []

    def arm() -> list[Tensor]:
        value = function(*inputs)
        if not of_value:
            drawing = torch.Generator(value.device).manual_seed(9)
            drawn = torch.randn(value.shape, generator=drawing, device=value.device, dtype=torch.float32)
            of_value.append(drawn.bfloat16().to(value.dtype))  # the same in every type
        return [value.detach(), *torch.autograd.grad(value, list(inputs), of_value[0])]

    return arm


def errors(fast: Callable[..., Tensor], naive: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Row:
    """Relative errors of value and gradients against float64, beside those of the naive way in the same type."""

    def leaves(kind: torch.dtype) -> list[Tensor]:
        return [t.detach().to(kind).requires_grad_() for t in inputs]

    exact = there_and_back(naive, leaves(torch.float64))()
    found = {}
    for name, way in (("fast", fast), ("naive", naive)):
        answers = there_and_back(way, leaves(inputs[0].dtype))()
        found[name] = [figure(distance_of(ours, right)) for ours, right in zip(answers, exact, strict=True)]
    floor = 1e-4  # float32
    sound = all(a <= max(floor, LARGEST_EXCESS * b) for a, b in zip(found["fast"], found["naive"], strict=True))
    return {**found, "sound": sound}


def distance_of(ours: Tensor, right: Tensor) -> float:
    """Relative to the size of what is right; nothing is far from nothing."""
    return float((ours.double() - right).norm() / right.norm().clamp(min=1e-300))


def machine(size: Size) -> Row:
    """What the device does at best here: bytes copied, read and written both counted, and a matmul in bfloat16."""
    if size.device == "cpu":
        return {"device_name": "cpu, Triton's interpreter: times say nothing"}
    data = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    into = torch.empty_like(data)
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    times = compare(size, {"copy": lambda: into.copy_(data), "matmul": lambda: square @ square})
    return {
        "device_name": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "copy_gb_s": figure(2 * data.numel() / float(str(times["copy"]["ms"])) / 1e6),
        "matmul_tflop_s": figure(2 * 8192**3 / float(str(times["matmul"]["ms"])) / 1e9),
    }
