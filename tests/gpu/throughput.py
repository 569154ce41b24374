"""How fast the starts of the GPU lane train, and what they learn meanwhile: `python -m tests.gpu.throughput`.

    python -m tests.gpu.throughput --data FOLDER --variants plain,modern,modern+long --rounds 4 --steps 20

Arms are processes on one GPU that take turns: in each round every arm trains `--steps` steps on the same text in the
same order, and the first arm is what the others are compared with. Prints one JSON object. Without --data the tokens
are random, with frequencies like those of words; `--tiny --device cpu` tries everything without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.gpu.variants import CHANGES, TINY, TREES, NoSuchVariant, Variant, variant

PEAK_FLOPS = 989.4e12  # H100 and H200, dense bfloat16
SKIP = 3  # steps of each round that are not counted: the memory comes back, the clocks rise
LAST = 10  # steps whose mean loss is shown
RANDOM_TOKENS = 40_000_000


class Arm:
    """A process that trains one variant. `error` says why it is out, where it is."""

    def __init__(self, program: Variant, tokens: Path, options: argparse.Namespace, folder: Path) -> None:
        tree = folder / program.name
        tree.mkdir()
        for path, text in program.sources.items():
            (tree / path).write_text(text)
        settings = {
            "total": options.rounds * (options.steps + SKIP) + (SKIP + 2) * options.profile + 2, "skip": SKIP,
            "device": options.device, "setup": program.setup, "vocabulary": program.constant("VOCAB_SIZE"),
            "length": program.constant("SEQUENCE_LENGTH"),
        }  # fmt: skip
        self.program, self.error = program, ""
        self.stderr = (folder / f"{program.name}.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.arm", str(tree), str(tokens), json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, text=True,
            env=os.environ | program.environment,
        )  # fmt: skip
        self.start: dict[str, Any] = {}
        self.rounds: list[dict[str, Any]] = []
        self.kernels: list[dict[str, Any]] = []

    def ready(self) -> None:
        self.start = self._reply()
        print(f"{self.program.name}: {self.error or self.start}", file=sys.stderr, flush=True)

    def train(self, steps: int) -> None:
        self._ask(steps=steps)
        if reply := self._reply():
            self.rounds.append(reply)

    def profile(self) -> None:
        self._ask(steps=2, profile=True)
        self.kernels = self._reply().get("kernels", [])

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()  # no more to ask
        self.stderr.close()

    def _ask(self, **request: object) -> None:
        if not self.error and self.process.stdin:
            try:
                print(json.dumps(request), file=self.process.stdin, flush=True)
            except BrokenPipeError:
                self._give_up()

    def _reply(self) -> dict[str, Any]:
        line = "" if self.error or not self.process.stdout else self.process.stdout.readline()
        if not line:
            self._give_up()
            return {}
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _give_up(self) -> None:
        self.stderr.seek(0)
        lines = [line.strip() for line in self.stderr if line.strip()]
        self.error = self.error or (lines[-1] if lines else f"ended with {self.process.wait()}")

    def batch_tokens(self) -> int:
        rows = self.program.constant("DEVICE_ROWS") * self.program.constant("SEQUENCE_LENGTH")
        return max(1, self.program.constant("BATCH_TOKENS") // rows) * rows

    def report(self, first: Arm) -> dict[str, Any]:
        if self.error or not self.rounds:
            return {"error": self.error or "no round was finished"}
        speeds = self.speeds()
        ratios = [mine / its for mine, its in zip(speeds, first.speeds(), strict=False)]
        losses = [loss for round_ in self.rounds for loss in round_["losses"]]
        speed = statistics.median(speeds)
        return {
            "tokens_per_second": round(speed),
            "tokens_per_second_by_round": [round(s) for s in speeds],
            f"times_{first.program.name}": round(statistics.median(ratios), 4) if ratios else None,
            f"times_{first.program.name}_by_round": [round(r, 4) for r in ratios],
            "mfu": round(speed * self.flops_per_token() / PEAK_FLOPS, 4),
            "step_ms": round(statistics.median(ms for round_ in self.rounds for ms in round_["step_ms"]), 2),
            "steps": len(losses), "tokens_a_step": self.batch_tokens(),
            f"loss_last_{LAST}": round(statistics.fmean(losses[-LAST:]), 4),
            "losses": [round(loss, 4) for loss in losses[:: max(1, len(losses) // 20)]],
            "peak_gib": max(round_.get("peak_gib", 0.0) for round_ in self.rounds),
            **self.start,
            **({"kernels": self.kernels} if self.kernels else {}),
        }  # fmt: skip

    def speeds(self) -> list[float]:  # tokens a second, round by round
        return [self.batch_tokens() * len(r["step_ms"]) / r["seconds"] for r in self.rounds]

    def flops_per_token(self) -> float:
        """6 a weight of a product, and attention as the public scripts count it: windows SSSL, no causal half."""
        depth, width, length = (self.program.constant(name) for name in ("DEPTH", "WIDTH", "SEQUENCE_LENGTH"))
        windows = sum(length if n % 4 == 3 or n == depth - 1 else length // 2 for n in range(depth))
        return 6 * (12 * depth * width**2 + width * self.program.constant("VOCAB_SIZE")) + 12 * width * windows


def measure(options: argparse.Namespace, programs: list[Variant]) -> dict[str, Any]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        arms = _started(options, programs, Path(name))
        for turn in range(options.rounds):
            if time.monotonic() - began > options.limit:
                print(f"stopped after {turn} of {options.rounds} rounds", file=sys.stderr)
                break
            for arm in arms if turn % 2 == 0 else reversed(arms):
                arm.train(options.steps)
        for arm in arms:
            if options.profile:
                arm.profile()
        for arm in arms:
            arm.close()
    data = str(options.data) if options.data else "random"
    return {"data": data, "variants": {arm.program.name: arm.report(arms[0]) for arm in arms}}


def _started(options: argparse.Namespace, programs: list[Variant], folder: Path) -> list[Arm]:
    """Arms that have compiled, `--together` at a time: what tunes itself by timing should have the GPU for itself."""
    tokens = _tokens(options, folder, programs[0].constant("VOCAB_SIZE"))
    arms: list[Arm] = []
    for number, program in enumerate(programs):
        arms.append(Arm(program, tokens, options, folder))
        if number >= options.together - 1:
            arms[number - options.together + 1].ready()
    for arm in arms[max(0, len(arms) - options.together + 1) :]:
        arm.ready()
    return arms


def _tokens(options: argparse.Namespace, folder: Path, vocabulary: int) -> Path:
    if options.data:
        return Path(options.data) / "train.bin"
    draw = np.random.default_rng(1)
    ranks = np.exp(draw.uniform(0, np.log(vocabulary), 100_000 if options.tiny else RANDOM_TOKENS))  # Zipf's law
    ranks.astype(np.uint16).tofile(folder / "train.bin")
    return folder / "train.bin"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.throughput", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="prepared folder with train.bin (uint16); random tokens without")
    changes = f"{', '.join(CHANGES)}, a technique or NAME=value"
    parser.add_argument(
        "--variants", default="plain,modern,modern+long",
        help=f"a list; each a tree of {', '.join(TREES)}, and after a plus what changes it: {changes}",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of an arm in a round")
    parser.add_argument("--limit", type=float, default=480.0, help="seconds after which no round begins")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="two layers of 64 channels, 64 positions")
    parser.add_argument("--together", type=int, default=1, help="arms that compile at a time: sooner ready, less fair")
    parser.add_argument("--profile", action="store_true", help="list the kernels of two more steps")
    options = parser.parse_args(arguments)
    try:
        programs = [variant(name, TINY if options.tiny else {}) for name in options.variants.split(",")]
    except NoSuchVariant as error:
        print(error, file=sys.stderr)
        return 2
    if options.data and not (options.data / "train.bin").is_file():
        print(f"{options.data} has no train.bin; prepare it first", file=sys.stderr)
        return 2
    if options.device == "cuda" and not torch.cuda.is_available():
        print("PyTorch sees no CUDA device here; try --device cpu --tiny", file=sys.stderr)
        return 2
    print(json.dumps(measure(options, programs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
