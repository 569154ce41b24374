"""Trials of the kernel lane for tests: problems prepared small, a sandbox with an evaluator, trees by edits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import contract
from benchmarks.contract import Assignment, Outcome
from benchmarks.kernels import evaluate, trees
from benchmarks.tar import pack
from runners.device import sandbox_options
from runners.sandbox import Sandbox

KERNELS = contract.parse(Path(contract.__file__).parent / "kernels" / "benchmark.toml")
SMOKE = replace(KERNELS.preset("smoke"), budget_seconds=0.03)
SCALE, ADD = "scale_rows", "add_columns"


def problem(name: str, body: str, sizes: tuple[tuple[int, int], ...]) -> dict[str, str]:
    """Of x [rows, width] and gain [width], float32."""
    definition = {
        "name": name,
        "description": "For tests.",
        "axes": {"rows": {"type": "var"}, "width": {"type": "var"}},
        "inputs": {
            "x": {"shape": ["rows", "width"], "dtype": "float32"},
            "gain": {"shape": ["width"], "dtype": "float32"},
        },
        "outputs": {"out": {"shape": ["rows", "width"], "dtype": "float32"}},
        "reference": f"import torch\n\n\ndef run(x, gain):\n    {body}\n",
    }
    workloads = [
        {
            "uuid": f"{rows}x{width}",
            "axes": {"rows": rows, "width": width},
            "inputs": {"x": {"type": "random"}, "gain": {"type": "random"}},
            "tolerance": {"max_atol": 1e-4, "max_rtol": 1e-4, "required_matched_ratio": 1.0},
        }
        for rows, width in sizes
    ]
    return {"definition.json": json.dumps(definition), "workload.jsonl": "\n".join(map(json.dumps, workloads)) + "\n"}


def prepare(folder: Path) -> Path:
    """Two problems, as `python -m benchmarks.kernels prepare` lays them, with peaks that were not measured."""
    slow = "return torch.stack([row * gain for row in x])"
    problems = {SCALE: problem(SCALE, slow, ((40, 64), (64, 33))), ADD: problem(ADD, "return x + gain", ((64, 128),))}
    for name, files in problems.items():
        (folder / "problems" / name).mkdir(parents=True)
        for file, text in files.items():
            (folder / "problems" / name / file).write_text(text)
        works = {json.loads(line)["uuid"]: {"bytes": 1000, "macs": {}} for line in files["workload.jsonl"].splitlines()}
        (folder / "problems" / name / "work.json").write_text(json.dumps(works))
    rates = {"bf16": 1e15, "tf32": 1e15, "fp32": 1e15, "fp64": 1e15}
    peaks = {"device": "CPU", "source": "calibrated", "bytes_per_second": 1e12, "macs_per_second": rates}
    (folder / "peaks.json").write_text(json.dumps(peaks))
    manifest = {"data_id": "0" * 64, "vocabulary": 0, "problems": sorted(problems)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


class Trials:
    def __init__(self, data: Path, box: Sandbox) -> None:
        self.data, self.box, self.evaluator = data, box, evaluate.Evaluator()
        self.points: dict[str, list[float]] = {}
        self.preset = SMOKE

    def run(self, changed: Mapping[str, str] | None = None, problems: tuple[str, ...] = (SCALE,), seed: int = 1,
            caches: Path | None = None, confirming: bool = False) -> Outcome:  # fmt: skip
        """One trial of the start with the solutions of some problems changed."""
        task = replace(self.task(changed or {}, problems), seed=seed, caches=caches, confirming=confirming)
        self.points = {}
        return self.evaluator.run(task, self.box, self._note)

    def task(self, changed: Mapping[str, str], problems: tuple[str, ...]) -> Assignment:
        files = trees.start_files("reference", self.data)
        files |= {f"{name}/solution.py": text.encode() for name, text in changed.items()}
        return Assignment("kernels", self.preset, "c" * 40, pack(files), 1, "", self.data, problems=problems)

    def _note(self, name: str, steps: object, values: object) -> None:
        self.points.setdefault(name, []).extend(values)  # type: ignore[arg-type]


@contextmanager
def trials(folder: Path, slot: int = 6, device: str = "cpu") -> Iterator[Trials]:
    box = Sandbox.start(
        slot, inside=evaluate.INSIDE, preload=evaluate.PRELOAD, setup_statement=evaluate.SETUP,
        **sandbox_options(device),
    )  # fmt: skip
    with box:
        found = Trials(prepare(folder), box)
        yield found
        found.evaluator.close()
