"""Players of the kernel board: a project over kernel problems, candidates of theirs, and trials that end as a worker's.

Problems are copies of the lab's own with their CPU workloads; commits, diffs, leases, results and events are real, only
the times are made up.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.data import data_folder
from benchmarks.kernels.cells import CellTimes, metrics
from benchmarks.kernels.formats.loader import load_problem
from research.loop.begin import Budget, begin_project
from research.loop.commit import commit_candidate
from research.models import Experiment, Idea, Lease, Machine, MergeRequest, Project, Thread, Trial, Verdict

OWN = Path(__file__).parents[1] / "benchmarks" / "kernels" / "problems"
FEW = ("gqa_decode", "gqa_prefill", "moe_gating", "rms_norm", "silu_backward")
NOISE = {"sigma_pair": 0.01, "sigma_trial": 0.01, "drift": 0.0, "trials": 12}
Times = Mapping[str, CellTimes]  # by uuid


def prepare(names: tuple[str, ...] = FEW, identity: str = "few") -> Path:
    """Prepared data of the benchmark `toy_kernels`: these problems of the lab's own."""
    folder = data_folder("toy_kernels") / identity
    for name in names:
        target = folder / "problems" / name
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(OWN / name / "definition.json", target)
        shutil.copy(OWN / name / "workload.cpu.jsonl", target / "workload.jsonl")
    _use(folder, identity)
    return folder


def prepare_many(count: int, workloads: int, identity: str = "lots") -> Path:
    """`count` problems of `workloads` each, named as the official ones are."""
    folder = data_folder("toy_kernels") / identity
    definition = json.loads((OWN / "rms_norm" / "definition.json").read_text())
    line = json.loads((OWN / "rms_norm" / "workload.cpu.jsonl").read_text().splitlines()[0])
    kinds = ("rms_norm_of_residual_stream", "softmax_with_soft_cap", "rope_embedding_forward", "swiglu_gated_forward")
    for number in range(count):
        name = f"{number + 1:03d}_{kinds[number % len(kinds)]}"
        target = folder / "problems" / name
        target.mkdir(parents=True, exist_ok=True)
        (target / "definition.json").write_text(json.dumps(definition | {"name": name}))
        lines = (
            line | {"uuid": f"{number:04x}{at:028x}", "axes": {"rows": 64 << at % 8, "width": 128 * (1 + at // 4)}}
            for at in range(workloads)
        )
        (target / "workload.jsonl").write_text("\n".join(map(json.dumps, lines)))
    _use(folder, identity)
    return folder


def _use(folder: Path, identity: str) -> None:
    (folder / "manifest.json").write_text(json.dumps({"data_id": identity, "vocabulary": 0}))
    (folder.parent / "current").write_text(identity)


def begin(name: str = "kernels", threads: int = 2) -> Project:
    return begin_project(
        name, "toy_kernels", "quick", "reference", ["external"] * threads, Budget(), auto_approve=False,
        question="How close to the speed of light do plain kernels come?",
    )  # fmt: skip


def candidate(thread: Thread, changes: Mapping[str, str], title: str = "") -> Experiment:
    """An experiment of a candidate on the thread's head that appends a line to the solutions of these problems."""
    number = Idea.next_number(thread)
    idea = Idea.add(
        thread, number, kind="change", title=title or f"change {', '.join(changes)}", expected_effect=0.1, steps=[],
        hypothesis="Fewer passes over memory.", fingerprint=f"{thread.pk}-{number}",
    )  # fmt: skip
    project = thread.project
    sources = _sources(project, thread.head)
    changed = {f"{name}/solution.py": sources[f"{name}/solution.py"] + line + "\n" for name, line in changes.items()}
    made = commit_candidate(idea, thread.head, changed, [])
    assert made is not None, Idea.objects.get(pk=idea.pk).refusal
    return Experiment.objects.create(
        key=f"board-{made.commit}", project=project, thread=thread, candidate=made, rule=project.rule,
        number=project.next_experiment_number(), baseline_commit=thread.head, candidate_commit=made.commit,
    )  # fmt: skip


def _sources(project: Project, commit: str) -> dict[str, str]:
    from research.repository import Repository

    files = Repository(project.repository_path).files(commit)
    return {path: content.decode() for path, content in files.items()}


class Player:
    """A machine whose trials take as long as a test says."""

    def __init__(self, project: Project, bounded: bool = True) -> None:
        self.project, self.bounded = project, bounded
        self.machine, _ = Machine.objects.get_or_create(
            name="board", defaults={"machine_class": "8-core cpu, 2 slots", "slots": 2, "isolation_level": 3}
        )
        self.chance = random.Random(7)

    def times(self, problem: str, speedup: float, headroom: float = 8.0) -> Times:
        """Of every workload of a problem: a reference between 50 and 900 µs, `speedup` times as slow as main."""
        found = {}
        for at, workload in enumerate(load_problem(self.project.data_path / "problems" / problem).workloads):
            reference = (0.05 + 0.17 * (at % 6)) * self.chance.uniform(0.97, 1.03)
            bound = reference / headroom if self.bounded else None
            found[workload.uuid] = CellTimes(reference / speedup * self.chance.uniform(0.97, 1.03), reference, bound)
        return found

    def start(self, experiment: Experiment, stage: str = "screen", pairs: int = 1) -> list[Lease]:
        experiment.plan(stage, pairs)
        waiting = experiment.trials.waiting().filter(stage=stage).order_by("pk")
        return [lease for trial in waiting if (lease := trial.lease(self.machine, "board"))]

    def finish(self, lease: Lease, measured: Mapping[str, Times], failure: str = "") -> None:
        trial = Trial.objects.select_related("experiment", "project").get(pk=lease.trial_id)
        told: dict[str, float] = {}
        for problem, times in ({} if failure else measured).items():
            for uuid, cell in times.items():
                told |= metrics(problem, uuid, cell)
        assert trial.finish(
            lease, machine=self.machine, score=None if failure else 1.0, failure=failure, metrics=told,
            message=failure and "workload 2 of it: 31 % of the elements are off by more than the tolerance",
            isolation_level=3, machine_class=self.machine.machine_class, device_seconds=1.0,
        )  # fmt: skip

    def measure(
        self, experiment: Experiment, speedups: Mapping[str, float], stage: str = "screen", pairs: int = 1,
        base: Callable[[str], float] = lambda problem: 1.0, failure: str = "",
    ) -> None:  # fmt: skip
        """Both arms of the pairs; `base` says how fast the baseline is on a problem."""
        for lease in self.start(experiment, stage, pairs):
            is_candidate = lease.trial.arm == Trial.Arm.CANDIDATE
            worth = {name: speedups[name] if is_candidate else base(name) for name in speedups}
            self.finish(
                lease, {name: self.times(name, value) for name, value in worth.items()}, failure if is_candidate else ""
            )

    def verdict(self, experiment: Experiment, kind: str = "improved", relative: float = 0.2) -> Verdict:
        experiment.end()
        return Verdict.objects.create(
            experiment=experiment, kind=kind, stage="confirm", bar=20, e_value=44.0, effect=relative, relative=relative,
            low=relative - 0.02, high=relative + 0.02, pairs=4, reason="made up",
            evidence={"pairs": [{"stage": "confirm", "pair": 0, "seed": 1, "baseline": 1.0, "candidate": 1 - relative}],
                      "noise": NOISE},
        )  # fmt: skip

    def gain(
        self, thread: Thread, worth: Mapping[str, float], base: Callable[[str], float] = lambda _: 1.0
    ) -> MergeRequest:
        """A confirmed gain of a thread on some problems, whose merge request is open."""
        experiment = candidate(thread, {name: f"# {value} times" for name, value in worth.items()})
        self.measure(experiment, worth, base=base)
        self.measure(experiment, worth, "confirm", 4, base=base)
        verdict = self.verdict(experiment, relative=1 - 1 / min(worth.values()))
        assert thread.advance_head(thread.head, experiment.candidate_commit)
        thread.refresh_from_db()
        return MergeRequest.open_for(verdict, thread)
