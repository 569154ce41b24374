"""Does the whole lab find gains of a known size, and nothing where there is none? Real campaigns, real training.

40 candidates that change nothing go through supervisor, control, worker, sandbox, judge and the shipped rule; policy
approves merges. `nulls`: none is worth anything. `planted`: five of them secretly train longer, by as much as makes a
gain of about 2 or 4 sigma of a pair over the head they are measured on, by a measured curve of gain over budget. Only
when named: about ten minutes each. `--quick`: 6 candidates, two of them planted.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from tests.bench.web import ROOT, in_a_folder

if TYPE_CHECKING:
    from benchmarks.contract import Assignment
    from research.models import Project, Verdict
    from runners.slot import Slot

ABOUT = {
    "nulls": "a campaign of 40 candidates that change nothing: how many are merged (10 minutes)",
    "planted": "a campaign of 40 candidates, 5 with a hidden gain of 2 or 4 sigma: which are found (12 minutes)",
}
SETTINGS = "tests.bench.planted_settings"
BENCHMARK, PRESET, START = "planted", "short", "vanilla"
CANDIDATES, SIZES = 40, (2.0, 4.0, 2.0, 4.0, 2.0)  # sizes of the hidden gains, in sigma of a pair
QUICK_CANDIDATES, QUICK_SIZES = 6, (2.0, 4.0)
FACTORS, PAIRS = (1.0, 1.5, 3.0), 6  # budgets of the calibration, and pairs at each
MINUTES = 25.0  # where the search is cut off; it ends when the last candidate has its verdict
SEED = 20_261_123


def measure(kind: str) -> dict[str, object]:
    found = json.loads(in_a_folder("tests.bench.planted", kind))
    hidden, false = len(found["planted"]), f"{found['false']} merged of {found['candidates']} candidates"
    figure = f"{found['found']} of {hidden} found, {false} beside them" if hidden else false
    return {"figure": figure, "unit": "gains, merges", "command": f"python -m tests.bench {kind}", **found}


def measure_nulls() -> dict[str, object]:
    return measure("nulls")


def measure_planted() -> dict[str, object]:
    return measure("planted")


@dataclass(frozen=True)
class Curve:
    """Gain over the start by the factor of its budget, measured: linear in the logarithm between the points."""

    points: Sequence[tuple[float, float]]  # (log factor, gain), rising, from (0, 0)
    sigma: float  # of a pair
    seconds: float

    def gain(self, factor: float) -> float:
        x = math.log(factor)
        (a, low), (b, high) = self._stretch(x, 0)
        return low + (x - a) * (high - low) / (b - a)

    def factor(self, gain: float) -> float:
        (a, low), (b, high) = self._stretch(gain, 1)
        return math.exp(a + (gain - low) * (b - a) / (high - low))

    def _stretch(self, value: float, axis: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """The two points around a value; beyond the last one the last stretch goes on."""
        at = next((i for i in range(1, len(self.points)) if value <= self.points[i][axis]), len(self.points) - 1)
        return self.points[at - 1], self.points[at]


def main(kind: str) -> None:
    quick = "BENCH_QUICK" in os.environ
    candidates, sizes = (QUICK_CANDIDATES, QUICK_SIZES) if quick else (CANDIDATES, SIZES)
    os.environ |= {"DJANGO_SETTINGS_MODULE": SETTINGS, "PLANTED_CANDIDATES": str(candidates)}
    import django

    django.setup()
    from django.conf import settings

    from benchmarks.nanochat.__main__ import install_data
    from tests.bench.benchmarks.planted.evaluate import planted_file

    install_data()
    (Path(settings.DATA_DIR) / "datasets" / BENCHMARK).symlink_to("nanochat")
    planted_file().write_text("{}")
    curve, hidden = None, {}
    if kind == "planted":
        curve = calibrate()
        hidden = plant(curve, sizes, candidates)
        planted_file().write_text(json.dumps(hidden))
    began = time.monotonic()
    summary = campaign()
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps(report(summary, hidden, curve) | {"seconds": seconds}))


def calibrate() -> Curve:
    """Pairs of the start with its own and with a longer budget, side by side as in the lab."""
    from benchmarks.contract import Assignment, load
    from benchmarks.data import data_folder, data_id
    from benchmarks.tar import pack
    from runners.slot import Slot, cores

    contract, began = load(BENCHMARK), time.monotonic()
    preset, tree = contract.preset(PRESET), pack(contract.start_files(START, PRESET))
    task = Assignment(
        benchmark=BENCHMARK, preset=preset, commit="", tree=tree, seed=0, split="val_screen",
        data=data_folder(BENCHMARK) / data_id(BENCHMARK, preset)[:16],
    )  # fmt: skip
    slots = [Slot(number, cpu) for number, cpu in enumerate(cores()[:2])]
    gains: dict[float, list[float]] = {factor: [] for factor in FACTORS}
    for number in range(PAIRS):
        for factor in FACTORS:
            gains[factor].append(pair(slots[:: 1 if number % 2 else -1], replace(task, seed=1_000 + number), factor))
        print(f"calibration: {number + 1} of {PAIRS}", file=sys.stderr)
    for slot in slots:
        slot.close()
    sigma = math.sqrt(fmean(variance(found) for found in gains.values()))
    measured = [(math.log(factor), fmean(gains[factor])) for factor in FACTORS[1:]]
    return Curve([(0.0, 0.0), *measured], sigma, round(time.monotonic() - began, 1))


def pair(slots: Sequence[Slot], task: Assignment, factor: float) -> float:
    """The gain of one arm that trains so much longer than the other."""
    longer = replace(task, preset=replace(task.preset, budget_seconds=task.preset.budget_seconds * factor))
    gate = threading.Barrier(2)

    def score(slot: Slot, task: Assignment) -> float:
        box, module = slot.prepare(task.benchmark)
        evaluator = module.Evaluator()
        try:
            outcome = evaluator.run(task, box, lambda *points: None, gate=lambda: gate.wait(60) and None, cpu=slot.cpu)
        finally:
            evaluator.close()
        if outcome.score is None:
            sys.exit(f"a calibration trial failed: {outcome.failure}")
        return float(outcome.score)

    with ThreadPoolExecutor(2) as pool:
        baseline, candidate = pool.map(score, slots, (task, longer))
    return baseline - candidate


def plant(curve: Curve, sizes: Sequence[float], candidates: int) -> dict[str, float]:
    """Which notes lengthen the budget, and by which factor: each on top of those before it, if they were found."""
    notes = sorted(random.Random(SEED).sample(range(2, candidates + 1), len(sizes)))
    hidden, height = {}, 0.0
    for note, size in zip(notes, sizes, strict=True):
        hidden[str(note)] = curve.factor((height + size) * curve.sigma) / curve.factor(height * curve.sigma)
        height += size
    return hidden


def campaign() -> dict[str, Any]:
    """`manage.py campaign` until the researcher has nothing left; its last line."""
    command = [
        sys.executable, "manage.py", "campaign", "--benchmark", BENCHMARK, "--preset", PRESET, "--start", START,
        "--researcher", "notes", "--threads", "1", "--minutes", str(MINUTES), "--auto-approve", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"the campaign failed (exit code {done.returncode}); its error stands above")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(summary: dict[str, Any], hidden: dict[str, float], curve: Curve | None) -> dict[str, Any]:
    """What was merged, beside what is true."""
    from research.models import MergeRequest, NoiseFloor, Project, Verdict

    project = Project.objects.get(name=summary["project"])
    floor = NoiseFloor.objects.get()
    merged = project.merge_requests.filter(state=MergeRequest.State.MERGED).select_related("candidate__idea")
    notes = sorted(request.candidate.idea.steps[0]["tunables"]["number"] for request in merged)
    verdicts = Verdict.objects.filter(experiment__project=project).select_related("experiment__candidate__idea")
    by_note = {verdict.experiment.candidate.idea.steps[0]["tunables"]["number"]: verdict for verdict in verdicts}
    sigma = curve.sigma if curve else floor.sigma_pair
    planted = [planted_row(int(note), by_note.get(int(note)), curve) for note in hidden] if curve else []
    return {
        "candidates": len(by_note), "planted": planted, "merged": notes,
        "found": sum(str(note) in hidden for note in notes), "false": sum(str(note) not in hidden for note in notes),
        "trials": summary["trials"], "verdicts": summary["experiments"],
        "confirmed_or_tried_to": project.experiments.filter(hypothesis__isnull=False).count(),
        "sigma_pair_floor": round(floor.sigma_pair, 5), "sigma_pair": round(sigma, 5), "drift": round(floor.drift, 2),
        "calibration": {"gains": {f"{math.exp(x):.2g}": round(gain, 4) for x, gain in curve.points},
                        "seconds": curve.seconds} if curve else None,
        "start_score": summary["start_score"], "champion_score": summary["champion_score"],
        "isolation_level": summary["isolation_level"], "idle_median_s": summary["idle_median_s"],
        "simulate": simulated(project),
    }  # fmt: skip


def planted_row(note: int, verdict: Verdict | None, curve: Curve) -> dict[str, Any]:
    """One planted candidate: its true gain over the head it was measured on, and what the lab said of it."""
    from research.models import Candidate
    from tests.bench.benchmarks.planted.evaluate import factor_of

    if verdict is None:
        return {"note": note, "verdict": None}
    experiment = verdict.experiment
    head = Candidate.objects.filter(project=experiment.project, commit=experiment.baseline_commit).first()
    below = factor_of(step["tunables"]["number"] for step in head.recipe) if head else 1.0
    own = factor_of([note])
    true = curve.gain(below * own) - curve.gain(below)
    effect = verdict.effect
    return {
        "note": note, "budget_factor": round(own, 3), "head_factor": round(below, 3),
        "true_sigma": round(true / curve.sigma, 2),
        "measured_sigma": None if effect is None else round(effect / curve.sigma, 2),
        "verdict": verdict.kind, "stage": verdict.stage, "pairs": verdict.pairs,
    }  # fmt: skip


def simulated(project: Project) -> dict[str, Any]:
    """`manage.py simulate --project`: what the rule would do over many campaigns with this noise and drift."""
    from django.core.management import call_command

    printed = io.StringIO()
    call_command("simulate", project=project.name, json=True, stdout=printed)
    told: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
    kept = ("recommended", "barren_share_with_merge", "p_e_ge_20")
    return {"shipped": told["rules"][told["recommended"]], **{name: told[name] for name in kept}}


if __name__ == "__main__":
    main(sys.argv[1])
