"""Whether another commit's warm-up beside a timed trial touches its timing: `python -m tests.gpu.beside`, JSON.

Trials of one commit, alone and beside the warm-up of a commit that is new each time (so it compiles), in turn: A B B A.
What is compared is how many steps of training a trial came to; the figure is the mean log ratio of a pair with its
standard error. The warm-up runs in a sandbox of its own on the last cores of the machine, the trial on the others.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contract import load
from benchmarks.nanochat import evaluate
from runners.device import sandbox_options
from runners.sandbox import Sandbox
from tests import token_play as play


class Bench:
    def __init__(self, device: str, start: str, seconds: float, folder: Path) -> None:
        contract, name = load("nanochat"), "gpu-60s" if device == "cuda" else "gpu-tiny"
        self.preset = replace(contract.preset(name), clock="wall", budget_seconds=seconds, wall_cap_seconds=seconds)
        self.device, self.folder, self.data = device, folder, folder / "data"
        self.files = contract.start_sources(start, name)
        validation = self.preset.score_rows * (self.preset.sequence_length + 1) + 200
        play.write_data(self.data, self.preset.vocabulary, 20_000_000 if device == "cuda" else 200_000, validation)
        self.evaluator, self.serial = evaluate.Evaluator(), 0
        cores = sorted(os.sched_getaffinity(0))
        apart = max(1, len(cores) // 4)
        self.own, self.others = set(cores[:-apart] or cores), set(cores[-apart:])

    def measure(self, pairs: int) -> dict[str, Any]:
        with ExitStack() as stack:
            boxes = [stack.enter_context(self._box(slot)) for slot in (0, 1)]
            for box, cores in zip(boxes, (self.own, self.others), strict=True):
                os.sched_setaffinity(box.zygote_pid, cores)
            stack.callback(self.evaluator.close)
            self._steps(boxes[0])  # compiles, once and for all trials
            rows = []
            for pair in range(pairs):
                beside = {}
                for busy in (False, True) if pair % 2 == 0 else (True, False):
                    beside[busy] = self._beside(boxes) if busy else self._steps(boxes[0])
                rows.append({"alone": beside[False], "beside": beside[True]})
        ratios = [math.log(row["beside"] / row["alone"]) for row in rows]
        error = statistics.stdev(ratios) / math.sqrt(pairs) if pairs > 1 else None
        return {"pairs": rows, "mean_log_ratio": statistics.mean(ratios), "standard_error": error}

    def _box(self, slot: int) -> Sandbox:
        return Sandbox.start(
            slot, inside=evaluate.INSIDE, preload=evaluate.PRELOAD, setup_statement=evaluate.SETUP,
            **sandbox_options(self.device),
        )  # fmt: skip

    def _steps(self, box: Sandbox) -> int:
        """Steps that one trial came to, by the last one it logged."""
        last = [0]
        sink = lambda name, steps, values: last.append(int(steps[-1]))  # noqa: E731
        task = play.task(self.files, self.data, self.preset, caches=self.folder / "caches")
        outcome = self.evaluator.run(task, box, sink)
        if outcome.failure:
            raise SystemExit(f"{outcome.failure.kind}: {outcome.failure.message}")
        return max(last)

    def _beside(self, boxes: list[Sandbox]) -> int:
        self.serial += 1
        other = self.files | {"train.py": self.files["train.py"] + f"\n# {self.serial}\n"}
        task = replace(play.task(other, self.data, self.preset, caches=self.folder / "caches"), commit=str(self.serial))
        thread = threading.Thread(target=self.evaluator.prepare, args=(task, boxes[1]))
        thread.start()
        steps = self._steps(boxes[0])
        thread.join()
        return steps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--start", default="modern")
    parser.add_argument("--seconds", type=float, default=10.0, help="budget of a trial")
    parser.add_argument("--pairs", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.device, options.start, options.seconds, Path(folder))
        print(json.dumps(bench.measure(options.pairs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
