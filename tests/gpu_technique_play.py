"""Plays a tree of the GPU lane at tiny size on a CPU, without the lab, with a stand-in for the harness.

The stand-in keeps the fixed API of the token lane. Its clock is a list, so that a run of a few steps passes through the
beginning, the middle and the end of every schedule. `tiny` sets the constants of a tree down.
"""

from __future__ import annotations

import ast
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType

import torch
from torch import Tensor, nn

from benchmarks import edits
from benchmarks.catalogue import Sources, Step, Technique, Value
from benchmarks.nanochat.catalogue.gpu import CATALOGUE

FOLDER = Path("benchmarks/nanochat/starts/gpu").resolve()
STARTS = {
    start: {path.name: path.read_text() for path in (FOLDER / start).glob("*.py")} for start in ("modern", "vanilla")
}
SEED = 3
LENGTH = 32
VOCABULARY = 128
CLOCK = (0.02, 0.2, 0.45, 0.7, 0.85, 0.93, 1.0)  # after each step
TEXT = torch.randint(1, VOCABULARY, (6_000,), generator=torch.Generator().manual_seed(1)).to(torch.uint16)
ROWS = torch.randint(1, VOCABULARY, (3, LENGTH), generator=torch.Generator().manual_seed(2))
TOKEN_BYTES = torch.randint(97, 117, (VOCABULARY, 16), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
for _token in range(VOCABULARY):  # of 1 to 4 bytes, the rest zero; token 0 stands for no bytes
    TOKEN_BYTES[_token, min(_token, 1 + _token % 4) :] = 0

SIZES: dict[str, dict[str, Value]] = {
    "model.py": {"VOCAB_SIZE": VOCABULARY, "SEQUENCE_LENGTH": LENGTH, "WIDTH": 32, "HEADS": 2, "DEPTH": 2},
    "train.py": {"BATCH_TOKENS": 8 * LENGTH, "DEVICE_ROWS": 4, "LOSS_ROWS": 2 * LENGTH},
}
GATES: dict[str, Value] = {"GATE_CHANNELS": 16}
TINY: dict[str, dict[str, Value]] = {  # settings of techniques that set a size themselves
    "device_rows": {"rows": 2},
    "loss_rows": {"rows": LENGTH},
    "width": {"width": 48},
    "depth": {"depth": 3},
    "heads": {"heads": 4},
    "embedding_floor": {"floor": 1.0},
    "decay_pulses": {"at": 0.05},
    "muon_momentum": {"steps": 4},
    "bigram_values": {"channels": 16},
    "trigram_values": {"channels": 16},
}


class Harness(ModuleType):
    def __init__(self) -> None:
        super().__init__("harness")
        self.seed, self.sequence_length, self.vocab_size, self.device = SEED, LENGTH, VOCABULARY, "cpu"
        self.budget_seconds = 60.0
        self.token_bytes = TOKEN_BYTES
        self.steps = 0
        self.losses: list[float] = []
        self.state: dict[str, Tensor] = {}
        self.reserved: dict[str, torch.Size] = {}

    def start_clock(self) -> Tensor:
        return TEXT

    def progress(self) -> float:
        self.steps += 1
        return CLOCK[min(self.steps, len(CLOCK)) - 1]

    def log(self, step: int, **values: float) -> None:
        if "loss" in values:
            self.losses.append(values["loss"])

    def reserve(self, state: dict[str, Tensor]) -> None:
        self.reserved = {name: value.shape for name, value in state.items()}

    def submit(self, state: dict[str, Tensor]) -> None:
        self.state = {name: value.detach().clone() for name, value in state.items()}


@dataclass
class Run:
    first: dict[str, Tensor]  # the weights before the first step, as the tree made them
    losses: list[float]
    scores: Tensor  # [B, T, V] of ROWS, by the submitted weights in a fresh model
    state: dict[str, Tensor]
    reserved: dict[str, torch.Size]


@cache
def constants(source: str) -> dict[str, Value]:
    """Upper-case constants of a module that are plain numbers or texts."""
    found: dict[str, Value] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            if isinstance(node.value, ast.Constant):
                found[node.targets[0].id] = node.value.value
            elif isinstance(node.value, ast.BinOp):
                found[node.targets[0].id] = ast.unparse(node.value)
    return found


def tiny(sources: Sources) -> Sources:
    """A start at a size for a CPU: the constants of SIZES."""
    small = dict(sources)
    for path, sizes in SIZES.items():
        there = constants(small[path])
        for name, value in {**GATES, **sizes}.items():
            if name in there:
                small[path] = edits.constant(small[path], name, value)
    return small


def small_tables(sources: Sources) -> Sources:
    """Hashed tables of at most 256 rows."""
    model = sources["model.py"]
    for name, value in constants(model).items():
        if name.endswith("_ROWS") and isinstance(value, int) and value > 256:
            model = edits.constant(model, name, 256)
    return sources | {"model.py": model}


@cache
def program(name: str, text: str) -> CodeType:
    """A module's code, compiled once from a file of its own: Triton reads the text of a kernel there."""
    path = Path(_folder().name) / f"{abs(hash(text))}" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return compile(text, str(path), "exec")


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


@contextmanager
def loaded(sources: Sources) -> Iterator[dict[str, ModuleType]]:
    """The tree as modules. Its short names stand in sys.modules while it is in use."""
    modules: dict[str, ModuleType] = {"harness": Harness()}
    names = sorted((path.removesuffix(".py") for path in sources), key=_order)
    before = {name: sys.modules.get(name) for name in ("harness", *names)}
    try:
        sys.modules["harness"] = modules["harness"]
        for name in names:
            modules[name] = sys.modules[name] = ModuleType(name)
            exec(program(name, sources[f"{name}.py"]), modules[name].__dict__)
        yield modules
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def _order(name: str) -> int:
    """What imports others comes behind them."""
    return {"tables": 1, "model": 2, "optim": 3, "train": 4}.get(name, 0)


def built(modules: dict[str, ModuleType]) -> nn.Module:
    torch.manual_seed(SEED)
    return modules["model"].build()


def run(sources: Sources, weights: dict[str, Tensor] | None = None) -> Run:
    """Train to the end of CLOCK and score ROWS; `weights` take the place of first values where name and shape match."""
    first: dict[str, Tensor] = {}
    with loaded(sources) as modules:
        train, harness = modules["train"], modules["harness"]
        build = train.build

        def build_with_weights() -> nn.Module:
            model = build()
            first.update({name: value.clone() for name, value in model.state_dict().items()})
            for name, value in model.state_dict().items():
                if weights and name in weights and weights[name].shape == value.shape:
                    value.copy_(weights[name])
            return model

        train.build = build_with_weights
        train.LOG_EVERY = 1
        train.WARM_UP_STEPS = 1
        train.gc = ModuleType("gc")  # the switches of the garbage collector belong to the test process
        train.gc.collect = train.gc.freeze = train.gc.disable = lambda: None
        train.main()
        model = built(modules)
        model.load_state_dict(harness.state, strict=True)
        with torch.inference_mode():
            scores = model.eval()(ROWS)
        return Run(first, harness.losses, scores, harness.state, harness.reserved)


@cache
def start(name: str) -> Sources:
    return tiny(STARTS[name])


def steps_of(technique: Technique, **tunables: Value) -> list[Step]:
    """What must come before it, and the technique."""
    before = [Step(name, CATALOGUE[name].defaults()) for name in technique.requires[:1]]
    return [*before, Step(technique.name, technique.defaults() | TINY.get(technique.name, {}) | tunables)]


@cache
def changed(technique: Technique, name: str, **tunables: Value) -> Sources:
    """A start with a technique and what it requires. Raises DoesNotApply."""
    return small_tables(CATALOGUE.apply(dict(start(name)), steps_of(technique, **tunables)))


def shaken(modules: dict[str, ModuleType]) -> nn.Module:
    """A model whose weights are all away from zero, tables that the training would fill among them."""
    model = built(modules)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.2 * torch.randn(value.shape))
            else:
                value.random_(0, 256)
    return model.eval()


def added_lines(before: Sources, after: Sources) -> list[str]:
    """Lines that a file did not have before, as often."""
    return [
        line
        for name in after
        for line in (Counter(after[name].splitlines()) - Counter(before.get(name, "").splitlines())).elements()
    ]


def names_of_constants(sources: Sources) -> set[str]:
    """Upper-case names that the modules assign."""
    return {name for text in sources.values() for name in _assigned(text)}


@cache
def _assigned(text: str) -> frozenset[str]:
    return frozenset(
        target.id
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper()
    )


def mentions(sources: Sources, name: str) -> int:
    return sum(len(re.findall(rf"\b{name}\b", text)) for text in sources.values())
