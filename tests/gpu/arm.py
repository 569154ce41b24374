"""One arm of the throughput bench: runs a tree's own `train.main()` under a harness that counts steps, not seconds.

    python -m tests.gpu.arm TREE TOKENS '{"total": ..., "device": ..., ...}'

Both kinds of loop call `progress` once where a step has ended: there the arm takes the time, and there it waits for the
next round. A round is `skip` steps that are not counted and `steps` that are. Reads and writes one JSON object a line.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import numpy as np
import torch

KERNELS_SHOWN = 40


class LastRound(Exception):
    """The bench wants nothing more."""


class Harness(ModuleType):
    budget_seconds = 1e6  # what a start keeps for handing over the weights is then nothing

    def __init__(self, tokens: Path, settings: dict[str, Any], replies: TextIO) -> None:
        super().__init__("harness")
        self.device = settings["device"]
        self.seed, self.vocab_size, self.sequence_length = 1, settings["vocabulary"], settings["length"]
        spelled = np.random.default_rng(1).integers(97, 123, (self.vocab_size, 16), dtype=np.uint8)
        self.token_bytes = torch.from_numpy(spelled)  # no text is known here, only its tokens
        self._tokens, self._settings, self._replies = tokens, settings, replies
        self._done, self._wanted, self._ends = 0, 0, [0.0]
        self._losses: list[float] = []
        self._profiler: Any = None
        self._began = time.monotonic()

    def reserve(self, state: dict[str, torch.Tensor]) -> None:
        """Nothing is handed over here."""

    def start_clock(self) -> torch.Tensor:
        self._rest()
        self._reply(
            prepare_seconds=round(time.monotonic() - self._began, 1),
            attention=self._attention(), torch=torch.__version__, gpu=self._gpu(),
        )  # fmt: skip
        self._next_round()
        return torch.from_numpy(np.memmap(self._tokens, dtype=np.uint16, mode="c"))

    def log(self, step: int, **values: float) -> None:
        self._losses.append(values["loss"])

    def progress(self) -> float:
        self._done += 1
        self._ends.append(time.perf_counter())
        if self._done == self._wanted:
            self._end_round()
            self._next_round()
        return self._done / float(self._settings["total"])

    def _end_round(self) -> None:
        skip = self._settings["skip"]
        self._rest()
        ends = self._ends[self._from + skip : self._done + 1]
        report: dict[str, Any] = {
            "seconds": ends[-1] - ends[0],
            "step_ms": [round(1000 * (b - a), 2) for a, b in zip(ends, ends[1:], strict=False)],
            "losses": self._losses[self._from :],
        }
        if self._profiler:
            self._profiler.__exit__(None, None, None)
            report["kernels"] = self._kernels(self._done - self._from)
            self._profiler = None
        if self.device == "cuda":
            report["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        self._reply(**report)

    def _next_round(self) -> None:
        request = json.loads(sys.stdin.readline() or "{}")
        if not request:
            raise LastRound
        self._from = self._done
        self._wanted = self._done + self._settings["skip"] + request["steps"]
        if request.get("profile"):
            self._profiler = torch.profiler.profile()
            self._profiler.__enter__()

    def _kernels(self, steps: int) -> list[dict[str, Any]]:
        """Milliseconds a step and calls a step of the kernels that take longest, over all of the round."""
        rows = [row for row in self._profiler.key_averages() if row.self_device_time_total > 0]
        rows.sort(key=lambda row: -row.self_device_time_total)
        return [
            {
                "name": row.key[:120],
                "ms": round(row.self_device_time_total / 1000 / steps, 3),
                "calls": row.count / steps,
            }
            for row in rows[:KERNELS_SHOWN]
        ]

    def _attention(self) -> str:
        """Which kernel PyTorch takes for a long window."""
        if self.device != "cuda":
            return "cpu"
        q = torch.empty(8, 4, self.sequence_length, 128, dtype=torch.bfloat16, device="cuda", requires_grad=True)
        choice = torch._fused_sdp_choice(q, q, q, is_causal=True)
        return str(torch.nn.attention.SDPBackend(choice).name)

    def _gpu(self) -> str:
        return torch.cuda.get_device_name() if self.device == "cuda" else "cpu"

    def _rest(self) -> None:
        """Wait for the GPU and leave its memory to the other arms."""
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def _reply(self, **values: Any) -> None:
        print(json.dumps(values), file=self._replies, flush=True)


def main(tree: str, tokens: str, settings: dict[str, Any]) -> None:
    replies, sys.stdout = sys.stdout, sys.stderr
    if settings["device"] == "cpu":
        torch.set_num_threads(1)
    exec(settings["setup"], {"torch": torch})
    sys.path.insert(0, tree)
    sys.modules["harness"] = Harness(Path(tokens), settings, replies)
    import train  # the tree's

    try:
        train.main()
    except LastRound:
        return
    raise SystemExit("the tree stopped before the bench did")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
