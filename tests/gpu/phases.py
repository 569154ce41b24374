"""Where the seconds of a trial go on a device, cold and with its compile cache: `python -m tests.gpu.phases`, JSON.

Trials of one start by the lane's own evaluator in the sandbox, on made-up tokens, for each way of setting the compiler
up: the first one compiles, the second finds its cache. A few lines in the start's `train.py` print how its warm-up
spent its time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contract import load
from benchmarks.nanochat import evaluate
from runners.device import sandbox_options
from runners.sandbox import Sandbox
from tests import token_play as play

# How the sandbox is started: what is added to the environment that a device's sandbox has anyhow.
WAYS = {
    "as it is": {},
    "subprocess": {"TORCHINDUCTOR_WORKER_START": "subprocess"},
    "untuned": {"TORCHINDUCTOR_DETERMINISTIC": "1"},  # no kernel is chosen by its time
}
TOLD = """
import sys
import time

_began = time.monotonic()


def _tell(what):
    print(f"TOLD {what} {time.monotonic() - _began:.2f}", flush=True)


"""
COUNTS = """def _tell_counts():
    from torch._dynamo.utils import compilation_time_metrics, counters
    from torch._inductor import config

    spent = {n: [round(sum(s), 2), len(s)] for n, s in compilation_time_metrics.items() if sum(s) > 0.3}
    print("SPENT", json.dumps(spent), flush=True)
    print("COUNTED", json.dumps({k: dict(v) for k, v in counters.items() if k in ("inductor", "aot_autograd")}))
    print("THREADS", config.compile_threads, config.worker_start_method, flush=True)


"""
MARKS = (
    ("    torch.manual_seed(harness.seed)\n", "    _tell('main')\n", 0),
    ("    optimizer = build_optimizer(model)\n", "    _tell('built')\n", 1),
    ("    harness.reserve(model.state_dict())\n", "    _tell('warm')\n    _tell_counts()\n", 0),
    ("    tokens = harness.start_clock()", "    _tell('reserved')\n", 0),
)
STEPS = ("        train_step(model, optimizer, loss_function, batches, 0.0)\n", "        _tell('step')\n")


class Bench:
    def __init__(self, device: str, start: str, seconds: float, folder: Path) -> None:
        contract, name = load("nanochat"), "gpu-60s" if device == "cuda" else "gpu-tiny"
        self.preset = replace(contract.preset(name), clock="wall", budget_seconds=seconds, wall_cap_seconds=seconds)
        self.device, self.folder, self.data = device, folder, folder / "data"
        self.files = told(contract.start_sources(start, name))
        validation = self.preset.score_rows * (self.preset.sequence_length + 1) + 200
        play.write_data(self.data, self.preset.vocabulary, 20_000_000 if device == "cuda" else 200_000, validation)

    def measure(self, name: str, trials: int) -> dict[str, Any]:
        rows, evaluator = [], evaluate.Evaluator()
        began = time.monotonic()
        options = sandbox_options(self.device)
        options["environment"] = options.get("environment", {}) | WAYS[name]
        with Sandbox.start(
            0, inside=evaluate.INSIDE, preload=evaluate.PRELOAD, setup_statement=evaluate.SETUP, **options
        ) as box:
            ready = round(time.monotonic() - began, 2)
            try:
                for number in range(trials):
                    rows.append(self.trial(evaluator, box, name))
                    print(name, number, rows[-1], file=sys.stderr, flush=True)
            finally:
                evaluator.close()
        return {"sandbox_ready": ready, "trials": rows}

    def trial(self, evaluator: evaluate.Evaluator, box: Sandbox, name: str) -> dict[str, Any]:
        task = play.task(self.files, self.data, self.preset, caches=self.folder / f"caches-{name.replace(' ', '')}")
        losses: list[float] = []
        sink = lambda kind, steps, values: losses.extend(values) if kind == "loss" else None  # noqa: E731
        outcome = evaluator.run(task, box, sink)
        marks = [line[5:] for line in outcome.log.splitlines() if line.startswith("TOLD ")]
        more = [line for line in outcome.log.splitlines() if line.startswith(("SPENT", "COUNTED", "THREADS"))]
        return {
            "seconds": {key: round(value, 2) for key, value in outcome.seconds.items()}, "marks": marks, "more": more,
            "steps": len(losses), "score": outcome.score, "cache_bytes": outcome.metrics.get("cache_bytes"),
            "device_memory": outcome.metrics.get("device_memory_bytes"),
            "failure": outcome.failure.message if outcome.failure else "",
        }  # fmt: skip


def told(files: dict[str, str]) -> dict[str, str]:
    """The start, with marks printed along its warm-up."""
    text = files["train.py"]
    for line, mark, after in MARKS:
        if line not in text:
            raise SystemExit(f"train.py has no line {line!r}")
        text = text.replace(line, line + mark if after else mark + line, 1)
    text = text.replace(STEPS[0], STEPS[0] + STEPS[1], 1)
    docstring, _, rest = text.partition('"""\n\n')
    rest = rest.replace("def main():", COUNTS + "def main():")
    return files | {"train.py": f'{docstring}"""\nimport json{TOLD}{rest}'}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--start", default="modern")
    parser.add_argument("--seconds", type=float, default=4.0, help="budget of a trial")
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--ways", default="as it is;untuned", help=f"of {'; '.join(WAYS)}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.device, options.start, options.seconds, Path(folder))
        print(json.dumps({name: bench.measure(name, options.trials) for name in options.ways.split(";")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
