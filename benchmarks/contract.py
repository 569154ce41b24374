"""What a benchmark promises: its metric, presets, editable and protected paths, read from `benchmark.toml`.

Every benchmark is a folder under `benchmarks/` that holds `benchmark.toml`, its protected evaluator, and for each lane
its starts (the trees a project can begin from) and its catalogue. This module reads the contract and fails with one
clear line; it runs nothing. The records below also cross the border between the machine worker and an evaluator.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeGuard

from benchmarks import edits
from benchmarks.catalogue import Catalogue

FOLDER = Path(__file__).parent
SHARED = ("compiled.py", "judging.py")  # of this folder: what every evaluator of the lab stands on
UNPROTECTED = ("starts/", "catalogue/", "kernels/", "exploits/", "redteam/", "one_file/", "explain.py")


class ContractError(ValueError):
    """A benchmark, preset or start that does not exist, or a `benchmark.toml` that cannot be used."""


@dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    lower_is_better: bool


@dataclass(frozen=True)
class Lane:
    """A kind of device with what is made for it. A preset may set the last four otherwise."""

    name: str
    starts: tuple[str, ...]  # folders in `starts/LANE/`
    catalogue: str  # a module
    device: str  # "cpu" or "cuda"
    vocabulary: int = 0  # ids of its tokens; 256: bytes; 0: it has none
    data: str = ""  # which of the benchmark's prepared data, see benchmarks/data.py
    check: str = ""  # the preset of a short check of a change; none without


Constants = Mapping[str, Mapping[str, int | float | str | bool]]  # file -> name -> value


@dataclass(frozen=True)
class Preset:
    """A named size of a benchmark. Seconds are of `clock`: "cpu" counts the process tree, "wall" a stopwatch."""

    name: str
    lane: str
    vocabulary: int
    device: str
    budget_seconds: float
    clock: str
    wall_cap_seconds: float
    side_by_side: bool  # both arms of a pair at the same time, one core each
    noise_pairs: int  # A/A pairs that make a noise floor
    confirm_data: str = ""  # the validation split that confirms; empty: inputs are drawn anew, there is no split
    sequence_length: int = 0
    score_rows: int = 0  # validation rows of `sequence_length` tokens that are scored
    audit_random: int = 0  # random positions whose suffix is cut off and scored again
    audit_targeted: int = 0  # the same, where the candidate beats its reference most
    audit_confirm_random: int = 0  # both again, for trials that confirm
    audit_confirm_targeted: int = 0
    data: str = ""
    check: str = ""
    screen_preset: str = ""  # the preset whose trials screen; empty: this one
    seeds: int = 5  # fresh paired seeds on which a campaign holds its champion against the start at its end
    constants: Constants = field(default_factory=dict, hash=False)  # set in a start's files when a project begins


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
        lanes = {name: _lane(name, body, path) for name, body in raw["lanes"].items()}
        presets = {name: _preset(name, body, lanes, path) for name, body in raw["presets"].items()}
        for preset in presets.values():
            _checked(preset, presets, path)
        return Benchmark(
            name=raw["name"],
            title=raw["title"],
            folder=path.parent,
            metric=Metric(raw["metric"]["name"], raw["metric"]["unit"], direction == "lower"),
            lanes=lanes,
            presets=presets,
            editable=_texts(raw, "editable", path),
            protected=_texts(raw, "protected", path),
            evaluator=raw["evaluator"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ContractError(
            f"{path.name} of {path.parent.name} lacks or misuses the key {error}; restore it"
        ) from error


DEVICES = ("cpu", "cuda")


def _lane(name: str, body: Mapping[str, Any], path: Path) -> Lane:
    values = _values(Lane, f"lane {name}", {"name": name, **body}, path)
    return Lane(**{**values, "starts": _texts(body, "starts", path)})


def _preset(name: str, body: Mapping[str, Any], lanes: Mapping[str, Lane], path: Path) -> Preset:
    if body.get("lane") not in lanes:
        raise ContractError(f"{path.name}: preset {name} needs a lane: one of {', '.join(lanes)}")
    lane = lanes[body["lane"]]
    of_lane = {"vocabulary": lane.vocabulary, "device": lane.device, "data": lane.data, "check": lane.check}
    return Preset(**_values(Preset, f"preset {name}", {"name": name, **of_lane, **body}, path))


def _values(record: type[Lane] | type[Preset], what: str, body: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The keys of one table: all that the record needs, none that it does not know, each of its type."""
    known = {one.name: one for one in fields(record)}
    if unknown := set(body) - set(known):
        raise ContractError(f"{path.name}: {what} has unknown keys {', '.join(sorted(unknown))}")
    needed = {name for name, one in known.items() if one.default is MISSING and one.default_factory is MISSING}
    if missing := needed - set(body):
        raise ContractError(f"{path.name}: {what} lacks {', '.join(sorted(missing))}")
    for name, value in body.items():
        if not _fits(value, str(known[name].type)):
            raise ContractError(f"{path.name}: {what} has {name} = {value!r}; it must be {known[name].type}")
    if body["device"] not in DEVICES:
        raise ContractError(f"{path.name}: {what} has device = {body['device']!r}; use {' or '.join(DEVICES)}")
    return dict(body)


def _checked(preset: Preset, presets: Mapping[str, Preset], path: Path) -> None:
    if not 0 < preset.budget_seconds < math.inf or preset.clock not in ("cpu", "wall"):
        raise ContractError(f"{path.name}: preset {preset.name} needs budget_seconds > 0 and clock 'cpu' or 'wall'")
    if preset.seeds < 1:
        raise ContractError(f"{path.name}: preset {preset.name} has seeds = {preset.seeds}; it must be 1 or more")
    for key in ("check", "screen_preset"):
        other = getattr(preset, key)
        alike = [n for n, p in presets.items() if (p.lane, p.vocabulary) == (preset.lane, preset.vocabulary)]
        if other and other not in alike:
            raise ContractError(
                f"{path.name}: {key} of preset {preset.name} is {other!r}; name one of {', '.join(alike)}"
            )


def _texts(raw: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    """A list of texts. One bare text would pass for a list of letters, and `protected` would protect nothing."""
    value = raw[key]
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ContractError(f"{path.name}: {key} must be a list of texts, not {value!r}")
    return tuple(value)


def _fits(value: object, wanted: str) -> bool:
    """Whether a value of the TOML file has the type that a field names; a whole number passes for a float."""
    if wanted == "Constants":
        values = [one for names in value.values() for one in names.values()] if _is_nested(value) else [None]
        return all(isinstance(one, int | float | str) for one in values)
    types = {"float": (float, int), "int": (int,), "str": (str,), "bool": (bool,), "tuple[str, ...]": (list, str)}
    return isinstance(value, types[wanted]) and (wanted == "bool" or not isinstance(value, bool))


def _is_nested(value: object) -> TypeGuard[dict[str, dict[str, object]]]:
    return isinstance(value, dict) and all(isinstance(names, dict) for names in value.values())
