"""Which program an arm of the throughput bench trains: a tree, and changes to it, as `modern+long+rows64`."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import edits
from benchmarks.nanochat.catalogue.gpu import CATALOGUE

HERE = Path(__file__).parent
STARTS = Path("benchmarks/nanochat/starts/gpu").resolve()
TREES = {"plain": HERE / "plain", "modern": STARTS / "modern", "vanilla": STARTS / "vanilla"}
LOSS = "loss = HeadLoss.apply(x, model.head.weight, targets)"
WHOLE_LOSS = "loss = torch.nn.functional.cross_entropy(softcap(model.head(x)), targets)"
FLASH_OFF, CUDNN_OFF = "torch.backends.cuda.enable_flash_sdp(False)", "torch.backends.cuda.enable_cudnn_sdp(False)"
EFFICIENT_OFF = "torch.backends.cuda.enable_mem_efficient_sdp(False)"


@dataclass(frozen=True)
class Change:
    """Constants by name, fragments of train.py to swap, a statement before anything is built, the environment."""

    constants: dict[str, object] = field(default_factory=dict)
    swaps: tuple[tuple[str, str], ...] = ()
    setup: str = ""
    environment: dict[str, str] = field(default_factory=dict)


CHANGES = {
    "long": Change({"WINDOWS": "L"}),
    "rows32": Change({"DEVICE_ROWS": 32}),
    "rows64": Change({"DEVICE_ROWS": 64}),
    "rows256": Change({"DEVICE_ROWS": 256}),
    "batch17": Change({"BATCH_TOKENS": 2**17, "DEVICE_ROWS": 64}),
    "whole_loss": Change(swaps=((LOSS, WHOLE_LOSS), ("import SOFTCAP, build", "import SOFTCAP, build, softcap"))),
    "cudnn": Change(setup=f"{FLASH_OFF}; {EFFICIENT_OFF}"),
    "flash": Change(setup=f"{CUDNN_OFF}; {EFFICIENT_OFF}"),
    "eager_muon": Change({"COMPILED_MUON": False}),
    "tuned": Change(environment={"TORCHINDUCTOR_COORDINATE_DESCENT_TUNING": "1"}),
    "autotune": Change({"COMPILE_MODE": "max-autotune-no-cudagraphs"}),
}  # and techniques of the catalogue with their defaults, and any constant of the tree, as SHORT_WINDOW=256
TINY: dict[str, object] = {
    "VOCAB_SIZE": 512, "SEQUENCE_LENGTH": 64, "DEPTH": 2, "WIDTH": 64, "BATCH_TOKENS": 1024, "DEVICE_ROWS": 8,
}  # fmt: skip


class NoSuchVariant(ValueError):
    """One line: what is wrong with the name."""


@dataclass(frozen=True)
class Variant:
    name: str
    sources: dict[str, str]
    setup: str
    environment: dict[str, str]

    def constant(self, name: str) -> int:
        return int(ast.literal_eval(_values(self.sources)[name][1]))


def variant(name: str, constants: dict[str, object]) -> Variant:
    """The program that `name` means, with `constants` set where its tree has them. Raises NoSuchVariant."""
    tree, *parts = name.split("+")
    if tree not in TREES:
        raise NoSuchVariant(f"{name}: there is no tree {tree!r}; choose one of {', '.join(TREES)}")
    sources = {path.name: path.read_text() for path in sorted(TREES[tree].glob("*.py"))}
    for key, value in constants.items():
        sources = _with_constant(sources, key, value)
    setup: list[str] = []
    environment: dict[str, str] = {}
    for part in parts:
        if part in CATALOGUE:
            sources = _with_technique(name, sources, part)
            continue
        change = CHANGES.get(part) or _assignment(name, part)
        for key, value in change.constants.items():
            if key not in _values(sources):
                raise NoSuchVariant(f"{name}: {tree} has no constant {key}")
            sources = _with_constant(sources, key, value)
        for old, new in change.swaps:
            sources["train.py"] = edits.swap(sources["train.py"], old, new)
        setup.append(change.setup)
        environment |= change.environment
    return Variant(name, sources, "; ".join(filter(None, setup)), environment)


def _with_technique(name: str, sources: dict[str, str], technique: str) -> dict[str, str]:
    try:
        return CATALOGUE[technique].apply(dict(sources), CATALOGUE[technique].defaults())
    except edits.DoesNotApply as error:
        raise NoSuchVariant(f"{name}: {error}") from error


def _assignment(name: str, part: str) -> Change:
    key, equals, value = part.partition("=")
    if not equals:
        raise NoSuchVariant(
            f"{name}: there is no change {part!r}; choose one of {', '.join(CHANGES)}, a technique, or NAME=value"
        )
    try:
        return Change({key: ast.literal_eval(value)})
    except (ValueError, SyntaxError) as error:
        raise NoSuchVariant(f"{name}: {value} is no number or text of Python") from error


def _values(sources: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Upper-case constants of a tree: the file of each and the text of its value."""
    return {
        target.id: (path, ast.unparse(node.value))
        for path, text in sources.items()
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper()
    }


def _with_constant(sources: dict[str, str], key: str, value: object) -> dict[str, str]:
    found = _values(sources).get(key)
    return sources | {found[0]: edits.constant(sources[found[0]], key, value)} if found else sources
