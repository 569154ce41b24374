"""A project on the toy of many problems, and a machine that runs its real evaluator on what the lab assigns."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.data import data_folder, use
from research.loop.advance import advance_project_until_idle
from research.models import Machine, NoiseFloor, Project, Thread
from runners.lab import Lab
from tests.benchmarks.toy_problems.evaluate import SIGMA, Evaluator
from tests.cast import World, begin

# By which factor the latency of a problem changes with a constant of its solution.
WORTH = {
    "big_gemm": {"TILE": 0.5, "FUSE": 0.8},
    "layer_norm": {"TILE": 0.7, "FUSE": 1.3},
    "rms_norm": {"TILE": 1.0, "FUSE": 0.9},
    "small_gemm": {"TILE": 0.9, "FUSE": float("nan")},
}
NAMES = sorted(WORTH)


def prepare_problems() -> Path:
    """The data of the toy, as its preparation would leave them."""
    folder = data_folder("toy_problems") / "problems-a"
    for name, worth in WORTH.items():
        place = folder / "problems" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "definition.json").write_text(json.dumps({"name": name, "worth": worth}))
    identity = "5" * 64
    (folder / "manifest.json").write_text(json.dumps({"data_id": identity, "vocabulary": 0}))
    use(folder, "", identity)
    return folder


def begin_problems(name: str = "kernels", threads: int = 1, preset: str = "quick", **options: Any) -> Project:
    return begin(name, threads, preset=preset, benchmark="toy_problems", start="reference", **options)


@dataclass
class Bench(World):
    """A worker without a sandbox: it claims, evaluates and finishes trials as the lab's own does."""

    noise: Random = field(default_factory=lambda: Random(11))

    def __post_init__(self) -> None:
        self.lab = Lab(self.machine.name, self.machine.machine_class, 2, {"devices": ["cpu"]})
        self.lab.machine.attach(3, [])

    def run(self, pairs: int = 1_000) -> int:
        """Execute waiting pairs. Returns the number of trials."""
        evaluator, count = Evaluator(), 0
        for _ in range(pairs):
            if not (works := self.lab.claim()):
                break
            for work in works:
                self.played.append(work.trial)
                if not self.lab.share(work):
                    outcome = evaluator.run(work.task, self.noise, lambda *points: None)
                    assert self.lab.finish(work, outcome)
                count += 1
        return count

    def rounds(self, project: Project, most: int) -> None:
        """Let every thread and the machine work by turns, until nothing is left to do."""
        from tests.cast import go

        for _ in range(most):
            steps = sum(go(thread) for thread in project.threads.filter(state=Thread.State.ACTIVE).order_by("number"))
            advance_project_until_idle(project.pk)
            if not self.run() + steps:
                return


def quiet_floor(project: Project, machine: Machine) -> NoiseFloor:
    return NoiseFloor.objects.create(
        machine_class=machine.machine_class, **project.noise_key, sigma_trial=SIGMA, sigma_pair=SIGMA, drift=0.0,
        trials=12, level=1.0,
    )  # fmt: skip
