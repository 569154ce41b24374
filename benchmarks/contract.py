"""What a benchmark promises: its metric, presets, editable and protected paths, read from `benchmark.toml`.

Every benchmark is a folder under `benchmarks/` that holds `benchmark.toml`, its starts (the trees a project can begin
from), its catalogue and its protected evaluator. This module reads the contract and fails with one clear line; it runs
nothing. The records below also cross the border between the machine worker and an evaluator.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

FOLDER = Path(__file__).parent


class ContractError(ValueError):
    """A benchmark, preset or start that does not exist, or a `benchmark.toml` that cannot be used."""


@dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    lower_is_better: bool


@dataclass(frozen=True)
class Preset:
    """A named size of a benchmark. Seconds are of `clock`: "cpu" counts the process tree, "wall" a stopwatch."""

    name: str
    budget_seconds: float
    clock: str
    wall_cap_seconds: float
    sequence_length: int
    score_rows: int  # validation rows of `sequence_length` tokens that are scored
    audit_random: int  # random positions whose suffix is cut off and scored again
    audit_targeted: int  # the same, where the candidate beats its reference most
    audit_confirm_random: int  # both again, for trials that confirm
    audit_confirm_targeted: int
    side_by_side: bool  # both arms of a pair at the same time, one core each
    noise_pairs: int  # A/A pairs that make a noise floor
    confirm_data: str  # the validation split that confirms


@dataclass(frozen=True)
class Benchmark:
    name: str
    title: str
    folder: Path
    metric: Metric
    presets: Mapping[str, Preset]
    starts: tuple[str, ...]
    editable: tuple[str, ...]
    protected: tuple[str, ...]
    evaluator: str
    catalogue: str
    check: str = ""  # the preset of a short check of a change; none without

    def preset(self, name: str) -> Preset:
        if name not in self.presets:
            raise ContractError(
                f"benchmark {self.name} has no preset {name!r}; choose one of {', '.join(self.presets)}"
            )
        return self.presets[name]

    @property
    def check_preset(self) -> Preset:
        if not self.check:
            raise ContractError(f"benchmark {self.name} has no preset for checks; name one as `check`")
        return self.preset(self.check)

    def start_files(self, start: str) -> dict[str, bytes]:
        """The files of a start and the contract itself, as they enter a project's repository."""
        if start not in self.starts:
            raise ContractError(f"benchmark {self.name} has no start {start!r}; choose one of {', '.join(self.starts)}")
        root = self.folder / "starts" / start
        tree = {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.py"))}
        return tree | {"benchmark.toml": (self.folder / "benchmark.toml").read_bytes()}

    def load_evaluator(self) -> ModuleType:
        return importlib.import_module(self.evaluator)

    def load_catalogue(self) -> ModuleType:
        return importlib.import_module(self.catalogue)

    def explain(self, preset: Preset, data: Path) -> list[str]:
        """What whoever writes a change must know of its sandbox, a line each; nothing where `explain.py` is missing."""
        name = f"{self.evaluator.rpartition('.')[0]}.explain"
        if not (self.folder / "explain.py").is_file():
            return []
        return list(importlib.import_module(name).explain(preset, data))

    def catalogue_version(self, start: str) -> str:
        """Changes whenever what `describe_techniques` says could."""
        return _catalogue_version(self.folder, start)

    def describe_techniques(self, start: str) -> dict[str, dict[str, Any]]:
        """Of every technique its title, family and the files of a start that it changes. Half a second: tries each."""
        sources = {path: text.decode() for path, text in self.start_files(start).items() if path.endswith(".py")}
        described: dict[str, dict[str, Any]] = self.load_catalogue().CATALOGUE.describe(sources)
        return described

    def evaluator_hash(self) -> str:
        """sha256 over the protected program (every Python file but starts, catalogue, exploits, red team, words)."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*.py")):
            inner = path.relative_to(self.folder).as_posix()
            if not inner.startswith(("starts/", "catalogue/", "exploits/", "redteam/", "explain.py")):
                digest.update(inner.encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()


@lru_cache(maxsize=16)
def _catalogue_version(folder: Path, start: str) -> str:
    digest = hashlib.sha256()
    for path in sorted([*(folder / "catalogue").rglob("*.py"), *(folder / "starts" / start).rglob("*.py")]):
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
    wants_sample: bool = False  # let the trained model show something, where the benchmark knows how
    removed_guards: frozenset[str] = frozenset()  # of a test of the guards; an evaluator of the lab refuses any


@dataclass(frozen=True)
class Failure:
    """Why a trial has no score. `kind` is one of FAILURE_KINDS."""

    kind: str
    message: str


FAILURE_KINDS = (
    "crash",
    "timeout",
    "out_of_memory",
    "not_finite",
    "no_weights",
    "bad_output",
    "disk_full",
    "refused",
)


@dataclass(frozen=True)
class Observation:
    """One integrity observation of an evaluator; becomes a Finding of the experiment."""

    kind: str
    severity: str  # "info", "review" or "structural"
    message: str
    evidence: tuple[str, ...] = ()


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

    def run(self, task: Assignment, box: Any, sink: PointSink, gate: Gate = ..., cpu: int | None = None) -> Outcome: ...

    def close(self) -> None: ...


def names() -> list[str]:
    return sorted(p.parent.name for p in FOLDER.glob("*/benchmark.toml"))


def load(name: str) -> Benchmark:
    """Read the contract of one benchmark. Raises ContractError with one line that says what to mend."""
    path = FOLDER / name / "benchmark.toml"
    if not path.is_file():
        raise ContractError(f"no benchmark named {name!r}; there are {', '.join(names())}")
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
        check = raw.get("check", "")
        if check and check not in raw["presets"]:
            raise ContractError(f"{path.name}: check is {check!r}; name one of {', '.join(raw['presets'])}")
        return Benchmark(
            name=raw["name"],
            title=raw["title"],
            folder=path.parent,
            metric=Metric(raw["metric"]["name"], raw["metric"]["unit"], direction == "lower"),
            presets={name: _preset(name, body, path) for name, body in raw["presets"].items()},
            starts=_texts(raw, "starts", path),
            editable=_texts(raw, "editable", path),
            protected=_texts(raw, "protected", path),
            evaluator=raw["evaluator"],
            catalogue=raw["catalogue"],
            check=check,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ContractError(
            f"{path.name} of {path.parent.name} lacks or misuses the key {error}; restore it"
        ) from error


def _preset(name: str, body: Mapping[str, Any], path: Path) -> Preset:
    known = {f.name for f in fields(Preset)} - {"name"}
    if unknown := set(body) - known:
        raise ContractError(f"{path.name}: preset {name} has unknown keys {', '.join(sorted(unknown))}")
    if missing := known - set(body):
        raise ContractError(f"{path.name}: preset {name} lacks {', '.join(sorted(missing))}")
    for field_ in fields(Preset):
        value = body.get(field_.name, name)
        if not _fits(value, str(field_.type)):
            raise ContractError(f"{path.name}: preset {name} has {field_.name} = {value!r}; it must be {field_.type}")
    preset = Preset(name=name, **body)
    if not 0 < preset.budget_seconds < math.inf or preset.clock not in ("cpu", "wall"):
        raise ContractError(f"{path.name}: preset {name} needs budget_seconds > 0 and clock 'cpu' or 'wall'")
    return preset


def _texts(raw: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    """A list of texts. One bare text would pass for a list of letters, and `protected` would protect nothing."""
    value = raw[key]
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ContractError(f"{path.name}: {key} must be a list of texts, not {value!r}")
    return tuple(value)


def _fits(value: object, wanted: str) -> bool:
    """Whether a value of the TOML file has the type that a field names; a whole number passes for a float."""
    types = {"float": (float, int), "int": (int,), "str": (str,), "bool": (bool,)}[wanted]
    return isinstance(value, types) and (wanted == "bool" or not isinstance(value, bool))
