"""Solutions measured without the lab: a tree, problem by problem, one line each; a run that was cut off goes on.

A line holds what a trial would store. It counts for the tree, the data and the judge that made it: others are measured
anew, so a file never mixes two versions of anything.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.contract import Assignment, Benchmark, Outcome, Preset, load
from benchmarks.data import data_folder, data_id
from benchmarks.kernels import evaluate, trees
from benchmarks.kernels.anchors import Anchor
from benchmarks.kernels.cells import CellTimes, cells
from benchmarks.kernels.formats.fields import wrong
from benchmarks.kernels.score import mean, score
from benchmarks.tar import pack
from runners import device
from runners.sandbox import Sandbox, SandboxBroken

SLOT = 0


@dataclass(frozen=True)
class Line:
    """One problem. `score` is the geometric mean of the latencies relative to the reference; None where it failed."""

    problem: str
    key: str  # of tree, data, judge, preset and seed
    score: float | None
    failure: str = ""
    findings: tuple[str, ...] = ()
    times: Mapping[str, CellTimes] = field(default_factory=dict)  # uuid -> times
    seconds: float = 0.0

    @property
    def sol(self) -> float | None:
        """Mean SOL score over the workloads, the reference as baseline; 0 where it failed, None without bounds."""
        return self._score(lambda times: times.measured)

    @property
    def scaled(self) -> float | None:
        """The same by published anchors that were scaled to this device."""
        return self._score(lambda times: times.scaled)

    def _score(self, anchor: Callable[[CellTimes], Anchor | None]) -> float | None:
        if self.score is None:
            return 0.0
        pairs = [(times.latency_ms, anchor(times)) for times in self.times.values()]
        scores = [score(latency, at) for latency, at in pairs if at is not None]
        return mean(scores) if len(scores) == len(pairs) else None

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"times": {uuid: vars(each) for uuid, each in self.times.items()}}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        times = {uuid: CellTimes(**each) for uuid, each in row["times"].items()}
        return cls(**{**row, "times": times, "findings": tuple(row["findings"])})


class Suite:
    """A tree on one preset. `files`: path -> content, as in a commit."""

    def __init__(self, preset: str, files: Mapping[str, bytes] | None = None, seed: int | None = None) -> None:
        self.contract: Benchmark = load("kernels")
        self.preset: Preset = self.contract.preset(preset)
        self.data = data_folder("kernels") / data_id("kernels", self.preset)[:16]
        self.tree = pack(trees.start_files("reference", self.data) | dict(files or {}))
        self.seed = int.from_bytes(os.urandom(4), "big") >> 1 if seed is None else seed

    def problems(self, wanted: Sequence[str] = (), shard: tuple[int, int] = (1, 1)) -> list[str]:
        """The names to measure. Raises FormatError for one that is not prepared."""
        known = self.contract.problems(self.data)
        if unknown := [name for name in wanted if name not in known]:
            wrong(unknown[0], "is no prepared problem", f"choose of {', '.join(known[:8])} ... or prepare others")
        number, of = shard
        return [name for place, name in enumerate(wanted or known) if place % of == number - 1]

    @property
    def key(self) -> str:
        """Of all that two lines must have in common to be put side by side; the seed is not part of it."""
        parts = (self.tree, self.data.name.encode(), self.contract.evaluator_hash().encode(), self.preset.name.encode())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    def measure(
        self, names: Iterable[str], say: Callable[[str], None] = lambda _: None
    ) -> Iterator[tuple[Line, Outcome]]:
        """A launch a problem. Raises SandboxBroken where no sandbox can be had."""
        with ExitStack() as stack:
            if why := device.missing(self.preset.device):
                raise SandboxBroken(why)
            box = stack.enter_context(
                Sandbox.start(
                    SLOT, inside=evaluate.INSIDE, preload=evaluate.PRELOAD, setup_statement=evaluate.SETUP,
                    **device.sandbox_options(self.preset.device),
                )
            )  # fmt: skip
            evaluator = evaluate.Evaluator()
            stack.callback(evaluator.close)
            core = min(os.sched_getaffinity(0)) if self.preset.device == "cpu" else None
            if core is not None:
                box.pin(core)
            for name in names:
                say(name)
                task = Assignment(
                    "kernels", self.preset, "", self.tree, self.seed, "", self.data, problems=(name,), confirming=True
                )  # fmt: skip
                outcome = evaluator.run(task, box, lambda *_: None, cpu=core)
                yield self._line(name, outcome), outcome

    def _line(self, name: str, outcome: Outcome) -> Line:
        failure = f"{outcome.failure.kind}: {outcome.failure.message}" if outcome.failure else ""
        findings = tuple(f"{seen.kind}: {'; '.join(seen.evidence)}" for seen in outcome.observations)
        times = cells(outcome.metrics).get(name, {})
        seconds = round(outcome.seconds.get("total_wall", 0.0), 2)
        return Line(name, self.key, outcome.score, failure, findings, times, seconds)


def read_lines(path: Path, key: str) -> dict[str, Line]:
    """What a file has of this key, by problem. Raises FormatError."""
    return {line.problem: line for line in (all_lines(path) if path.is_file() else ()) if line.key == key}


def all_lines(path: Path) -> Iterator[Line]:
    """All that a file holds, in order; a last line that was cut off is left out. Raises FormatError."""
    if not path.is_file():
        wrong(str(path), "is not there", "give what `suite --out` wrote")
    content = path.read_bytes()
    for number, text in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            yield Line.from_json(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            wrong(f"{path}:{number}", f"is no line of a suite ({error})", "remove it, or give another file")


def append(path: Path, line: Line) -> None:
    """On the disk when this returns; what a cut-off run left of a line goes first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(path.read_bytes().rfind(b"\n") + 1)
        file.write(json.dumps(line.to_json(), allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def summary(lines: Sequence[Line]) -> dict[str, Any]:
    """Over all problems given: what failed counts as 0 for the SOL score and is no part of the geometric mean."""
    scores = [line.score for line in lines if line.score is not None]
    return {
        "problems": len(lines), "passed": len(scores),
        "relative_latency": math.exp(math.fsum(map(math.log, scores)) / len(scores)) if scores else None,
        "sol_score": _mean_of_all([line.sol for line in lines]), "anchors": "measured, the reference",
        "scaled_score": _mean_of_all([line.scaled for line in lines]),
        "findings": sum(bool(line.findings) for line in lines),
    }  # fmt: skip


def _mean_of_all(scores: Sequence[float | None]) -> float | None:
    """None where a problem that passed has no anchor: a mean over the others is another number."""
    known = [score for score in scores if score is not None]
    return mean(known) if known and len(known) == len(scores) else None
