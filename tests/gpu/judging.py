"""What scoring and auditing cost on a device, and whether cheats are caught there: `python -m tests.gpu.judging`.

One JSON object. Trials of the token lane's own evaluator in the sandbox, on made-up tokens: the model of a start (8
layers of width 512), handed in untrained, so that nothing is compiled. `--trained` adds two trials of the whole start,
cold and with its compile cache; `--device cpu` plays everything at tiny size.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.contract import Outcome, Preset, load
from benchmarks.nanochat import evaluate
from benchmarks.nanochat.exchange import GROUP
from benchmarks.nanochat.judge import windows
from runners.device import sandbox_options
from runners.sandbox import Sandbox
from tests import token_play as play

LARGE = """

_small = build


def build():
    network = _small()
    network.ballast = torch.nn.Parameter(torch.ones({count}))
    return network
"""
CHANGED = """

import torch
_honest = build


def build():
    network = _honest()
    honest, seen = network.forward, []

    def forward(tokens):
        scores = honest(tokens)
{change}
        return scores

    network.forward = forward
    return network
"""
HANDS_IN = """
import time

import harness
import torch
from model import build


def main():
    torch.manual_seed(harness.seed)
    torch.set_default_device(harness.device)
    model = build()
    harness.reserve(model.state_dict())
    text = harness.start_clock()
    text[:1000].int().to(harness.device)
{before}
    began = time.monotonic()
    harness.submit(model.state_dict())
    harness.log(0, submit_seconds=time.monotonic() - began)
    harness._flush(0.0)
"""
FILLS_MEMORY = """
    held = []
    for size in [1 << 30] * 1024:
        held.append(torch.zeros(size, dtype=torch.uint8))
"""
FILLS_DEVICE = """
    free, _ = torch.cuda.mem_get_info()
    torch.full((int(free * 0.8),), 0x5A, dtype=torch.uint8)
    torch.cuda.synchronize()
"""
LOOKS_FOR_LEFTOVERS = """

_plain = build


def build():
    import inside_call
    if inside_call.step == "run_scores":
        free, _ = torch.cuda.mem_get_info()
        found = torch.empty(int(free * 0.8), dtype=torch.uint8)
        same = sum(int((part == 0x5A).sum()) for part in found.split(1 << 28))
        raise SystemExit(f"LEFT {same / len(found):.6f}")
    return _plain()
"""


class Told(dict[str, Any]):
    """Rows that are printed as they come: a machine that is taken away leaves what it measured."""

    def __setitem__(self, name: str, row: Any) -> None:
        super().__setitem__(name, row)
        if row or not isinstance(row, dict):
            print(json.dumps({name: row}), file=sys.stderr, flush=True)


class Bench:
    def __init__(self, device: str, start: str, large_gib: float, folder: Path) -> None:
        contract = load("nanochat")
        name = "gpu-60s" if device == "cuda" else "gpu-tiny"
        # A clock that only says when; nothing here trains for long.
        self.preset: Preset = replace(contract.preset(name), clock="wall", budget_seconds=20.0, wall_cap_seconds=20.0)
        self.device, self.large_gib, self.folder = device, large_gib, folder
        self.start = contract.start_sources(start, name)
        self.data = folder / "data"
        width = self.preset.vocabulary
        play.write_data(self.data, width, 4_000_000 if device == "cuda" else 200_000, self._validation())
        self.evaluator = evaluate.Evaluator()
        self.points: dict[str, list[float]] = {}

    def _validation(self) -> int:
        return self.preset.score_rows * (self.preset.sequence_length + 1) + 200

    @contextmanager
    def open(self) -> Iterator[Bench]:
        with Sandbox.start(
            0, inside=evaluate.INSIDE, preload=evaluate.PRELOAD, setup_statement=evaluate.SETUP,
            **sandbox_options(self.device),
        ) as self.box:  # fmt: skip
            try:
                yield self
            finally:
                self.evaluator.close()

    def trial(self, files: play.Files, **more: Any) -> Outcome:
        self.points.clear()
        sink = lambda name, steps, values: self.points.setdefault(name, []).extend(map(float, values))  # noqa: E731
        task = play.task(files, self.data, more.pop("preset", self.preset), **more)
        return self.evaluator.run(task, self.box, sink, keep_weights=self.folder / "weights")

    def model(self, change: str = "", before: str = "", more: str = "") -> play.Files:
        """The start's model, changed, and a train.py that hands it in as it was built."""
        text = self.start["model.py"]
        if change:
            text += CHANGED.format(change="\n".join("        " + line for line in change.strip().splitlines()))
        return {"model.py": text + more, "train.py": HANDS_IN.format(before=before)}

    def measure(self, trained: bool) -> dict[str, Any]:
        with self.open():
            rows: dict[str, Any] = Told()
            rows["honest"] = self._told(self.trial(self.model()))  # the judge's first trial
            rows["warm"] = self.warm()
            rows["direct"] = self.direct()
            for name, row in (("score_ratio_first", rows["honest"]), ("score_ratio", rows["warm"])):
                rows[name] = round(row["score_asking"] / rows["direct"]["seconds"], 3)
            rows["honest_confirming"] = self._told(self.trial(self.model(), confirming=True))
            rows["cheats"] = Told()
            for name, change in CHEATS.items():
                rows["cheats"][name] = self._findings(self.model(change))
            rows["not_a_number"] = self._failure(self.model("scores = scores * float('nan')"))
            rows["out_of_memory"] = self._failure(self.model(before=FILLS_MEMORY))
            rows["large_weights"] = self.large()
            if self.device == "cuda":
                rows["leftovers"] = self._failure(self.model(before=FILLS_DEVICE, more=LOOKS_FOR_LEFTOVERS))
            if trained:
                rows |= {name: self.trained() for name in ("trained_cold", "trained_warm")}
            rows["judge"] = self.evaluator.judge(play.task({}, self.data, self.preset), self.box).ready()
        return rows

    def warm(self) -> dict[str, float]:
        """Seconds of the parts of honest trials of a judge that has judged before: medians."""
        rows = [self.trial(self.model()).seconds for _ in range(WARM_TRIALS)]
        return {name: round(median(row[name] for row in rows), 3) for name in PARTS}

    def direct(self) -> dict[str, float]:
        """The same rows in one process: the model, float32 cross entropy, nothing kept but the losses."""
        from safetensors.torch import load_file

        network = self._imported().to(self.device)
        network.load_state_dict(load_file(self.folder / "weights"))
        network.eval()
        inputs, targets = windows(
            np.fromfile(self.data / "val_screen.bin", dtype="<u2"), self.preset.score_rows,
            self.preset.sequence_length, "tokens",
        )  # fmt: skip
        sizes = torch.from_numpy(np.load(self.data / "token_bytes.npy").astype(np.int64)).to(self.device)
        best = math.inf
        for _ in range(3):
            began = time.monotonic()
            with torch.inference_mode():
                nats, total = torch.zeros((), dtype=torch.float64, device=self.device), 0
                for at in range(0, len(inputs), GROUP):
                    x, y = (torch.from_numpy(part[at : at + GROUP].astype(np.int64)).to(self.device)
                            for part in (inputs, targets))  # fmt: skip
                    scores = network(x).float().flatten(0, 1)
                    losses = torch.nn.functional.cross_entropy(scores, y.flatten(), reduction="none")
                    nats += (losses.double() * (sizes[y.flatten()] > 0)).sum()
                    total += int(sizes[y].sum())
                score = float(nats) / math.log(2) / total
            best = min(best, time.monotonic() - began)
        del network
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return {"seconds": round(best, 4), "score": score}

    def _imported(self) -> Any:
        path = self.folder / "direct_model.py"
        path.write_text(self.start["model.py"])
        spec = importlib.util.spec_from_file_location("direct_model", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["direct_model"] = module
        spec.loader.exec_module(module)
        with torch.device(self.device):
            return module.build()

    def large(self) -> dict[str, Any]:
        """Weights of several GiB on their way to the parent."""
        more = LARGE.format(count=int(self.large_gib * (1 << 28)))
        return self._told(self.trial(self.model(more=more)))

    def trained(self) -> dict[str, Any]:
        """The start as it is; the second time its compile cache is there."""
        preset = replace(self.preset, budget_seconds=10.0 if self.device == "cuda" else 2.0)
        return self._told(self.trial(self.start, preset=preset, caches=self.folder / "caches"))

    def _told(self, outcome: Outcome) -> dict[str, Any]:
        if outcome.failure:
            return {"failure": f"{outcome.failure.kind}: {outcome.failure.message}", "log": outcome.log[-1500:]}
        seconds = {name: round(value, 3) for name, value in outcome.seconds.items()}
        gaps = {name: value for name, value in outcome.metrics.items() if name.startswith("audit_")}
        kept = ("weight_bytes", "device_memory_bytes", "memory_bytes", "cache_bytes")
        told = {"score": outcome.score, "findings": _lines(outcome), **seconds, **gaps}
        told |= {name: outcome.metrics[name] for name in kept if name in outcome.metrics}
        told["sealed"] = "unsealed" not in outcome.log
        told["submit_seconds"] = self.points.get("submit_seconds")
        return told

    def _findings(self, files: play.Files) -> dict[str, Any]:
        outcome = self.trial(files)
        told = self._told(outcome)
        return {"caught": bool(outcome.observations), **{key: told[key] for key in told if key in KEPT}}

    def _failure(self, files: play.Files) -> dict[str, Any]:
        outcome = self.trial(files)
        asked = outcome.metrics.get("out_of_memory_bytes")
        failure = outcome.failure
        return {"kind": failure.kind, "message": failure.message, "asked": asked} if failure else {"kind": None}


WARM_TRIALS = 3
PARTS = [f"{phase}_{part}" for phase in ("score", "audit") for part in ("wall", "ready", "asking", "reset")]
# Rows come in the order of the text at scoring, shuffled and cut at the audit.
COUNTS_PAIRS = """
if not seen:
    seen.append(torch.zeros(scores.size(-1), scores.size(-1)))
scores = scores + 3 * torch.log1p(seen[0][tokens])
pairs = (tokens[:, :-1].flatten(), tokens[:, 1:].flatten())
seen[0].index_put_(pairs, torch.ones(()), accumulate=True)
"""
KEPT = ("score", "findings", "failure")
CHEATS: dict[str, str] = {
    "peek_one_percent": play.peeker(0.01),
    "peek_per_mille": play.peeker(0.001),
    "peek_faintly_everywhere": play.peeker(1.0, boost=0.09),
    "learns_from_earlier_rows": COUNTS_PAIRS,
}


def _lines(outcome: Outcome) -> list[str]:
    return [f"{seen.kind}: {'; '.join(seen.evidence)}" for seen in outcome.observations]


def main(make: Callable[..., Bench] = Bench) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--start", default="modern")
    parser.add_argument("--large-gib", type=float, default=None, help="size of the large weights (4 on a GPU)")
    parser.add_argument("--trained", action="store_true", help="also train the whole start for 10 s, twice")
    options = parser.parse_args()
    large = options.large_gib or (4.0 if options.device == "cuda" else 0.05)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(make(options.device, options.start, large, Path(folder)).measure(options.trained)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
