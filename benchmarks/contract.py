"""What a benchmark promises: its metric, presets, editable and protected paths, read from `benchmark.toml`.

Every benchmark is a folder under `benchmarks/` that holds `benchmark.toml`, its protected evaluator, and for each lane
its starts (the trees a project can begin from) and its catalogue. This module reads the contract and fails with one
clear line; it runs nothing. The records below also cross the border between the machine worker and an evaluator.
"""

from __future__ import annotations

import hashlib
import importlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from benchmarks import edits
from benchmarks.catalogue import Catalogue
from benchmarks.preset import (
    Constants,
    ContractError,
    Lane,
    Metric,
    Preset,
    check_preset,
    read_lane,
    read_preset,
    texts,
)

__all__ = [
    "Adapted", "Assignment", "Benchmark", "Constants", "ContractError", "Evaluator", "Failure", "Gate", "Lane",
    "Metric", "Observation", "Outcome", "PointSink", "Preset", "TrialFailed", "load", "names", "parse",
]  # fmt: skip

FOLDER = Path(__file__).parent
SHARED = ("compiled.py", "gpu.py", "identity.py", "judge_device.py", "judging.py")  # below every evaluator
UNPROTECTED = (
    "starts/", "catalogue/", "kernels/", "exploits/", "redteam/", "one_file/", "commands/", "explain.py", "suite.py",
)  # fmt: skip


@dataclass(frozen=True)
class Benchmark:
    name: str
    title: str
    folder: Path
    metric: Metric
    lanes: Mapping[str, Lane]
    presets: Mapping[str, Preset]
    editable: tuple[str, ...]
    protected: tuple[str, ...]
    evaluator: str
    work: str = "training"  # what a trial's budget goes into, in words

    def preset(self, name: str) -> Preset:
        if name not in self.presets:
            raise ContractError(
                f"benchmark {self.name} has no preset {name!r}; choose one of {', '.join(self.presets)}"
            )
        return self.presets[name]

    def lane_of(self, preset: str) -> Lane:
        return self.lanes[self.preset(preset).lane]

    def check_preset(self, preset: str) -> Preset:
        """What a check of a change runs under in a project of `preset`."""
        if not (check := self.preset(preset).check):
            raise ContractError(f"benchmark {self.name} has no preset for checks of {preset}; name one as `check`")
        return self.preset(check)

    def start_files(self, start: str, preset: str, data: Path | None = None) -> dict[str, bytes]:
        """The files of a start, sized for the preset, and the contract itself, as they enter a project's repository.

        `data`: the prepared data of a benchmark of many problems, whose starts are made from them.
        """
        lane = self.lane_of(preset)
        if start not in lane.starts:
            raise ContractError(
                f"benchmark {self.name} has no start {start!r} for {preset}; choose one of {', '.join(lane.starts)}"
            )
        contract = {"benchmark.toml": (self.folder / "benchmark.toml").read_bytes()}
        if (trees := self._trees()) is not None:
            if data is None:
                raise ContractError(f"the starts of benchmark {self.name} are made from its data; name their folder")
            return dict(trees.start_files(start, data)) | contract
        root = self.folder / "starts" / lane.name / start
        tree = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.py"))}
        if not tree:
            raise ContractError(f"start {start} of benchmark {self.name} has no files in {root}; restore them")
        for path, values in self.preset(preset).constants.items():
            tree[path] = self._sized(tree.get(path, b"").decode(), path, values, start, preset).encode()
        return tree | contract

    def problems(self, data: Path) -> tuple[str, ...]:
        """The problems of a benchmark of many, each a folder of the tree, by name; empty where the tree is one."""
        trees = self._trees()
        return tuple(trees.problems(data)) if trees is not None else ()

    def room(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Problem -> the share of its score that is left to gain, by the metrics of a trial; where a bound is known."""
        trees = self._trees()
        return dict(trees.room(metrics)) if trees is not None and hasattr(trees, "room") else {}

    def withheld(self, data: Path, problems: Sequence[str]) -> list[str]:
        """Those of these problems whose files are not ours to pass on; none where the benchmark brings all itself."""
        trees = self._trees()
        return list(trees.withheld(data, problems)) if trees is not None and hasattr(trees, "withheld") else []

    def spread(self, files: Mapping[str, bytes], problems: Sequence[str]) -> list[str]:
        """These problems of a tree, ordered so that the first few stand for all; as they come where that is unknown."""
        trees = self._trees()
        return list(trees.spread(files, problems) if trees is not None and hasattr(trees, "spread") else problems)

    def _trees(self) -> ModuleType | None:
        """The module of a benchmark of many problems that knows them: `problems(data)`, `start_files(start, data)`."""
        if not (self.folder / "trees.py").is_file():
            return None
        return importlib.import_module(f"{self.evaluator.rpartition('.')[0]}.trees")

    def _sized(self, text: str, path: str, values: Mapping[str, object], start: str, preset: str) -> str:
        for name, value in values.items():
            try:
                text = edits.constant(text, name, value)
            except edits.DoesNotApply as error:
                raise ContractError(
                    f"preset {preset} of benchmark {self.name} does not fit {path} of start {start}: {error}"
                ) from error
        return text

    def start_sources(self, start: str, preset: str, data: Path | None = None) -> dict[str, str]:
        """The Python files of a start as text."""
        files = self.start_files(start, preset, data)
        return {path: text.decode() for path, text in files.items() if path.endswith(".py")}

    def load_evaluator(self) -> ModuleType:
        return importlib.import_module(self.evaluator)

    def load_catalogue(self, preset: str) -> ModuleType:
        return importlib.import_module(self.lane_of(preset).catalogue)

    def catalogue(self, preset: str, data: Path) -> Catalogue:
        """The techniques of a preset's lane; in a benchmark of many problems, those for the problems of its data."""
        module = self.load_catalogue(preset)
        found: Catalogue = module.for_data(data) if hasattr(module, "for_data") else module.CATALOGUE
        return found

    def explain(self, preset: Preset, data: Path) -> list[str]:
        """What whoever writes a change must know of its sandbox, a line each; nothing where `explain.py` is missing."""
        name = f"{self.evaluator.rpartition('.')[0]}.explain"
        if not (self.folder / "explain.py").is_file():
            return []
        return list(importlib.import_module(name).explain(preset, data))

    def adapt(self, files: Mapping[str, bytes], preset: Preset) -> Adapted | None:
        """Files of a program in a public format as those of a candidate; None where they are in none that is known.

        Raises edits.DoesNotApply with one line that says what to change in them.
        """
        if not (self.folder / "one_file" / "adapt.py").is_file():
            return None
        format_ = importlib.import_module(f"{self.evaluator.rpartition('.')[0]}.one_file.adapt")
        adapted: Adapted | None = format_.adapt(files, preset) if format_.is_one_file(files) else None
        return adapted

    def catalogue_version(self, start: str, preset: str) -> str:
        """Changes whenever what `describe_techniques` says could."""
        return _catalogue_version(self.folder, self.preset(preset).lane, start)

    def describe_techniques(self, start: str, preset: str, data: Path) -> dict[str, dict[str, Any]]:
        """Of every technique its title, family and the files of a start that it changes. Half a second: tries each."""
        return self.catalogue(preset, data).describe(self.start_sources(start, preset, data))

    def evaluator_hash(self) -> str:
        """sha256 over the protected program (every Python file but those that no trial's score rests on)."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*.py")):
            inner = path.relative_to(self.folder).as_posix()
            if not inner.startswith(UNPROTECTED):
                digest.update(inner.encode() + b"\0" + path.read_bytes() + b"\0")
        for shared in SHARED:
            digest.update(shared.encode() + b"\0" + (Path(__file__).parent / shared).read_bytes() + b"\0")
        return digest.hexdigest()


@lru_cache(maxsize=16)
def _catalogue_version(folder: Path, lane: str, start: str) -> str:
    digest = hashlib.sha256()
    catalogue = folder / "catalogue"
    of_lane = [*catalogue.glob("*.py"), *(catalogue / lane).rglob("*.py")]
    for path in sorted([*of_lane, *(folder / "starts" / lane / start).rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Assignment:
    """One trial as a machine gets it: nothing in here tells which arm it is."""

    benchmark: str
    preset: Preset
    commit: str
    tree: bytes  # tar of the commit's files
    seed: int
    split: str  # the validation split that scores it
    data: Path
    confirming: bool = False  # audited more, and streamed where the model can
    reference: Path | None = None  # stored per-token losses of an earlier trial, for targeted audits
    keep_losses: Path | None = None
    caches: Path | None = None  # where compile caches of commits are kept; None keeps none
    origin: tuple[str, str] | None = None  # the start that it descends from: commit and sha256 of its tree
    wants_sample: bool = False  # let the trained model show something, where the benchmark knows how
    removed_guards: frozenset[str] = frozenset()  # of a test of the guards; an evaluator of the lab refuses any
    problems: tuple[str, ...] = ()  # what of the tree is measured, in a benchmark of many problems


@dataclass(frozen=True)
class Failure:
    """Why a trial has no score. `kind` is one of FAILURE_KINDS."""

    kind: str
    message: str


class TrialFailed(Exception):
    """A trial ends without a score. `metrics` are what is known of its failure."""

    def __init__(self, kind: str, message: str, metrics: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)
        self.metrics = metrics or {}


FAILURE_KINDS = (
    "crash",
    "timeout",
    "out_of_memory",
    "not_finite",
    "no_weights",
    "bad_output",
    "disk_full",
    "busy_device",
    "no_device",
    "no_data",
    "refused",
)


@dataclass(frozen=True)
class Observation:
    """One integrity observation of an evaluator; becomes a Finding of the experiment."""

    kind: str
    severity: str  # "info", "review" or "structural"
    message: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adapted:
    """A program of a public format as a candidate, and what a reader should know of how it is measured."""

    files: Mapping[str, bytes]
    taken: tuple[str, ...]  # the program's own files that are in it, by the names they came with
    observations: tuple[Observation, ...]


@dataclass
class Outcome:
    """What a trial came to: a score, or a failure; and everything needed to trust or redo it."""

    score: float | None = None
    failure: Failure | None = None
    observations: list[Observation] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)  # guard metrics; censored: 1 where the score is the cap
    seconds: dict[str, float] = field(default_factory=dict)  # wall and CPU seconds of each phase
    hashes: dict[str, str] = field(default_factory=dict)
    surroundings: dict[str, str] = field(default_factory=dict)  # device, clocks, sandbox, seed
    log: str = ""
    sample: str = ""  # what the trained model writes; data, never markup


PointSink = Callable[[str, Any, Any], None]  # (metric, steps int64 [n], values float64 [n])
Gate = Callable[[], None]  # called when a candidate is ready to start its clock: returns when its whole pair is


class Evaluator(Protocol):
    """What the module named by `evaluator` offers: trials on one slot, one after another."""

    def run(
        self, task: Assignment, box: Any, sink: PointSink, gate: Gate = ..., cpu: int | None = None,
        *, trained: Gate = ..., beside: bool = False,
    ) -> Outcome:  # fmt: skip
        """`trained` is called when nothing but judging is left; `beside`: another is judged until `gate` returns."""

    def prepare(self, task: Assignment, box: Any) -> bool:
        """Do what a commit does before its clock, so that its trials find it done. Whether they will; any thread."""

    def is_prepared(self, task: Assignment, box: Any) -> bool: ...

    def device_memory(self, task: Assignment, box: Any) -> int:
        """Bytes of the device's own memory in all; 0 without such a device."""

    def close(self) -> None: ...


def names() -> list[str]:
    return sorted(p.parent.name for p in FOLDER.glob("*/benchmark.toml"))


def load(name: str) -> Benchmark:
    """Read the contract of one benchmark. Raises ContractError with one line that says what to mend."""
    path = FOLDER / name / "benchmark.toml"
    if not path.is_file():
        raise ContractError(f"no benchmark named {name!r}; there are {', '.join(names())}")
    found = path.stat()
    return _parsed(path, found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=32)
def _parsed(path: Path, changed: int, size: int, inode: int) -> Benchmark:
    """Read once, as long as the file stays as it is."""
    return parse(path)


def parse(path: Path) -> Benchmark:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"{path.name} of {path.parent.name} is not valid TOML: {error}; restore it") from error
    try:
        direction = raw["metric"]["direction"]
        if direction not in ("lower", "higher"):
            raise ContractError(f"{path.name}: metric.direction is {direction!r}; use 'lower' or 'higher'")
        lanes = {name: read_lane(name, body, path) for name, body in raw["lanes"].items()}
        presets = {name: read_preset(name, body, lanes, path) for name, body in raw["presets"].items()}
        for preset in presets.values():
            check_preset(preset, presets, path)
        return Benchmark(
            name=raw["name"],
            title=raw["title"],
            folder=path.parent,
            metric=Metric(raw["metric"]["name"], raw["metric"]["unit"], direction == "lower"),
            lanes=lanes,
            presets=presets,
            editable=texts(raw, "editable", path),
            protected=texts(raw, "protected", path),
            evaluator=raw["evaluator"],
            work=raw.get("work", Benchmark.work),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ContractError(
            f"{path.name} of {path.parent.name} lacks or misuses the key {error}; restore it"
        ) from error
