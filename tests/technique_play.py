"""Plays a tree of the nanochat lane without the lab: its own three files, and a stand-in for the harness.

The stand-in keeps the fixed API (seed, sequence_length, vocab_size, start_clock, progress, log, submit). Its clock is a
list, so that a run of a dozen steps passes through the beginning, the middle and the end of every schedule.
"""

from __future__ import annotations

import ast
import difflib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType

import torch
from torch import Tensor, nn

from benchmarks.catalogue import Sources, Technique
from benchmarks.nanochat.catalogue.cpu import CATALOGUE

START = {path.name: path.read_text() for path in Path("benchmarks/nanochat/starts/cpu/vanilla").resolve().glob("*.py")}
SEED = 3
LENGTH = 128
VOCABULARY = 256
CLOCK = (0.01, 0.03, 0.1, 0.25, 0.45, 0.65, 0.8, 0.87, 0.91, 0.93, 0.945, 0.962, 0.972, 0.98, 1.0)  # after each step
TEXT = torch.randint(97, 117, (20_000,), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
ROWS = torch.randint(0, VOCABULARY, (3, LENGTH), generator=torch.Generator().manual_seed(2))


class Harness(ModuleType):
    def __init__(self) -> None:
        super().__init__("harness")
        self.seed, self.sequence_length, self.vocab_size = SEED, LENGTH, VOCABULARY
        self.steps = 0
        self.losses: list[float] = []
        self.state: dict[str, Tensor] = {}

    def start_clock(self) -> Tensor:
        return TEXT

    def progress(self) -> float:
        self.steps += 1
        return CLOCK[min(self.steps, len(CLOCK)) - 1]

    def log(self, step: int, **values: float) -> None:
        if "loss" in values:
            self.losses.append(values["loss"])

    def submit(self, state: dict[str, Tensor]) -> None:
        self.state = {name: value.detach().clone() for name, value in state.items()}


@dataclass
class Tree:
    """A loaded tree: three modules and the harness that they were given."""

    model: ModuleType
    optim: ModuleType
    train: ModuleType
    harness: Harness

    def build(self) -> nn.Module:
        torch.manual_seed(SEED)
        return self.model.build()


@dataclass
class Run:
    first: dict[str, Tensor]  # the weights before the first step, as the tree made them
    losses: list[float]
    scores: Tensor  # [B, T, V] of ROWS, by the submitted weights in a fresh model
    names: set[tuple[str, torch.Size]] = field(default_factory=set)


@cache
def program(name: str, text: str) -> CodeType:
    """A module's code, compiled once."""
    return compile(text, f"{name}.py", "exec")


@contextmanager
def loaded(sources: Sources) -> Iterator[Tree]:
    """The tree as modules. Its short names stand in sys.modules while it is in use."""
    harness = Harness()
    modules: dict[str, ModuleType] = {"harness": harness}
    before = {name: sys.modules.get(name) for name in ("harness", "model", "optim", "train")}
    try:
        sys.modules["harness"] = harness
        for name in ("model", "optim", "train"):
            modules[name] = sys.modules[name] = ModuleType(name)
            exec(program(name, sources[f"{name}.py"]), modules[name].__dict__)
        yield Tree(modules["model"], modules["optim"], modules["train"], harness)
    finally:
        torch.set_flush_denormal(False)  # a mode of the whole process, which a technique may have set
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def run(sources: Sources, weights: dict[str, Tensor] | None = None) -> Run:
    """Train to the end of CLOCK and score ROWS; `weights` take the place of first values where name and shape match."""
    first: dict[str, Tensor] = {}
    with loaded(sources) as tree:
        build = tree.train.build

        def built() -> nn.Module:
            model = build()
            first.update({name: value.clone() for name, value in model.state_dict().items()})
            for name, value in model.state_dict().items():
                if weights and name in weights and weights[name].shape == value.shape:
                    value.copy_(weights[name])
            return model

        tree.train.build = built
        tree.train.LOG_EVERY = 1
        tree.train.main()
        model = tree.build()
        model.load_state_dict(tree.harness.state, strict=True)
        with torch.inference_mode():
            scores = model.eval()(ROWS)
        names = {(name, value.shape) for name, value in first.items()}
        return Run(first, tree.harness.losses, scores, names)


@cache
def changed(technique: Technique) -> Sources:
    """The start with one technique at its defaults."""
    return CATALOGUE[technique.name].apply(dict(START), technique.defaults())


def shaken(tree: Tree) -> nn.Module:
    """A model whose weights are all away from zero, tables that the training would fill among them."""
    model = tree.build()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.randn(value.shape))
            else:
                value.random_(0, VOCABULARY)
    return model.eval()


def added_lines(sources: Sources) -> list[str]:
    return [
        line[2:]
        for name in START
        for line in difflib.ndiff(START[name].splitlines(), sources[name].splitlines())
        if line.startswith("+ ")
    ]


def constants(sources: Sources) -> set[str]:
    """Upper-case names that the modules assign."""
    return {
        target.id
        for text in sources.values()
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper()
    }


def mentions(sources: Sources, name: str) -> int:
    return sum(len(re.findall(rf"\b{name}\b", text)) for text in sources.values())
