"""A program of the public one-file format as a trial on a device: `python -m tests.gpu.one_file`, one JSON object.

As in public: the model compiled, flash attention with windows from `kernels`, embeddings in bfloat16,
autocast, eleven uncounted steps. Adapted, trained in the sandbox on made-up tokens, scored and audited; the second
trial finds the compile cache of the first. `--device cpu` tries it at tiny size, where nothing is compiled.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contract import Preset, load
from benchmarks.nanochat import evaluate
from runners.device import sandbox_options
from runners.sandbox import Sandbox
from tests import one_file_play, token_play

KERNELS = """
from kernels import get_kernel
fa3 = get_kernel("someone/flash-attention-3").flash_attn_interface

from prepare import"""
ATTENTION = """y = fa3.flash_attn_func(*(x.transpose(1, 2) for x in (q, k, v)), causal=True, window_size=self.window)
        y = y.transpose(1, 2)"""
CHANGES = (
    ("\nfrom prepare import", KERNELS),
    ("y = F.scaled_dot_product_attention(q, k, v, is_causal=True)", ATTENTION),
    ("        self.heads = config.n_head\n", "        self.heads = config.n_head\n        self.window = (-1, 0)\n"),
    ("        self.scale = torch.linspace", "        self.wte.to(torch.bfloat16)\n        self.scale = torch.linspace"),
    ("config.n_layer)])\n", "config.n_layer)])\n        self.h[0].window = (config.sequence_len // 4, 0)\n"),
    ("    n_layer: int = 1\n", "    n_layer: int = 4\n"),
    ("        loss = model(x, y)\n", "        with autocast:\n            loss = model(x, y)\n"),
    (
        "total_training_time = 0\n",
        "autocast = torch.amp.autocast(device_type=device.type, dtype=torch.bfloat16)\ntotal_training_time = 0\n",
    ),
)
ON_GPU = (
    ("    n_head: int = 2\n    n_embd: int = 32\n", "    n_head: int = 4\n    n_embd: int = 512\n"),
    ("tokenizer, 8, MAX", "tokenizer, 64, MAX"),
    ("optimizer = torch.optim.AdamW", "model = torch.compile(model, dynamic=False)\noptimizer = torch.optim.AdamW"),
    ("lr=0.02", "lr=0.002"),
)


def program(device: str) -> str:
    text = one_file_play.flat()
    for old, new in (*CHANGES, *(ON_GPU if device == "cuda" else ())):
        if old not in text:
            raise SystemExit(f"the program has no {old!r}")
        text = text.replace(old, new, 1)
    return text


def trials(preset: Preset, device: str, folder: Path, count: int) -> list[dict[str, Any]]:
    validation = preset.score_rows * (preset.sequence_length + 1) + 200
    tokens = 20_000_000 if device == "cuda" else 200_000
    token_play.write_data(folder / "data", preset.vocabulary, tokens, validation)
    adapted = load("nanochat").adapt({"train.py": program(device).encode()}, preset)
    assert adapted is not None
    files = {name: text.decode() for name, text in adapted.files.items()}
    task = token_play.task(files, folder / "data", preset, caches=folder / "caches")
    evaluator, rows = evaluate.Evaluator(), []
    options = {**sandbox_options(device), "preload": evaluate.PRELOAD, "setup_statement": evaluate.SETUP}
    with Sandbox.start(0, inside=evaluate.INSIDE, **options) as box:
        try:
            for _ in range(count):
                outcome = evaluator.run(task, box, lambda *_: None)
                rows.append({
                    "score": outcome.score, "failure": outcome.failure and outcome.failure.message,
                    "findings": [(seen.kind, seen.message, seen.evidence) for seen in outcome.observations],
                    "seconds": {name: round(value, 2) for name, value in outcome.seconds.items()},
                    "said": outcome.log.splitlines()[-6:],
                })  # fmt: skip
        finally:
            evaluator.close()
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=8.0, help="budget of a trial")
    parser.add_argument("--trials", type=int, default=2)
    options = parser.parse_args()
    preset = load("nanochat").preset("gpu-60s" if options.device == "cuda" else "gpu-tiny")
    preset = replace(preset, clock="wall", budget_seconds=options.seconds, wall_cap_seconds=options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        rows = trials(preset, options.device, Path(folder), options.trials)
    print(json.dumps(rows, indent=1))
    return int(any(row["failure"] or row["findings"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
