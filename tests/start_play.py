"""Plays the starts of the GPU lane at tiny size on a CPU: their own files, and a stand-in for the harness.

The clock of the stand-in moves by a fixed share of the budget with every finished step.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tests.gpu.variants import TINY, variant
from tests.text import SYLLABLES

MODULES = ("model", "optim", "data", "train")
VOCABULARY, LENGTH = int(str(TINY["VOCAB_SIZE"])), int(str(TINY["SEQUENCE_LENGTH"]))


@cache
def text_tokens() -> Tensor:
    """uint16 [40,000]: words of a small vocabulary, their syllables as tokens, documents that begin with token 0."""
    draw = random.Random(7)
    words = [draw.choices(range(1, 1 + len(SYLLABLES)), k=draw.randint(1, 4)) for _ in range(40)]
    tokens: list[int] = []
    while len(tokens) < 40_000:
        tokens.append(0)
        for word in draw.choices(words, [1 / rank for rank in range(1, 41)], k=60):
            tokens += [*word, 1 + len(SYLLABLES)]
    return torch.tensor(tokens[:40_000]).to(torch.uint16)


class Harness(ModuleType):
    def __init__(self, steps: int) -> None:
        super().__init__("harness")
        self.device, self.seed, self.budget_seconds = "cpu", 3, 60.0
        self.sequence_length, self.vocab_size = LENGTH, VOCABULARY
        self.share, self.finished = 1 / steps, 0
        self.reserved: dict[str, Any] = {}
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.state: dict[str, Tensor] = {}

    def reserve(self, state: dict[str, Tensor]) -> None:
        self.reserved = {name: value.shape for name, value in state.items()}

    def start_clock(self) -> Tensor:
        return text_tokens()

    def progress(self) -> float:
        self.finished += 1
        return self.finished * self.share

    def log(self, step: int, **values: float) -> None:
        assert step == len(self.losses)
        self.losses.append(values["loss"])
        self.rates.append(values.get("learning_rate", 0.0))

    def submit(self, state: dict[str, Tensor]) -> None:
        self.state = {name: value.detach().clone() for name, value in state.items()}


class Tree:
    """A loaded tree: its modules by name, and the harness they were given."""

    def __init__(self, modules: dict[str, ModuleType], harness: Harness) -> None:
        self.modules, self.harness = modules, harness

    def __getattr__(self, name: str) -> Any:
        return self.modules[name]


@contextmanager
def loaded(name: str, steps: int = 40, tiny: bool = True, **constants: object) -> Iterator[Tree]:
    """A variant of a start as modules. Its short names stand in sys.modules while it is in use."""
    sources = variant(name, TINY | constants if tiny else constants).sources
    harness = Harness(steps)
    modules: dict[str, ModuleType] = {"harness": harness}
    before = {module: sys.modules.get(module) for module in (*MODULES, "harness")}
    try:
        sys.modules["harness"] = harness
        for module in MODULES:
            if f"{module}.py" in sources:
                modules[module] = sys.modules[module] = ModuleType(module)
                exec(compile(sources[f"{module}.py"], f"{module}.py", "exec"), modules[module].__dict__)
        torch.manual_seed(harness.seed)
        yield Tree(modules, harness)
    finally:
        for module, old in before.items():
            if old is None:
                sys.modules.pop(module, None)
            else:
                sys.modules[module] = old
