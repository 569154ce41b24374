"""What the lab makes of this machine's GPUs: `python -m tests.gpu.machine [--data FOLDER]`, one JSON object.

Each GPU as `attach --devices cuda:N` would take it: its name, its nodes, the isolation of its slot, the seconds until a
sandbox is ready for a trial. With a folder of text, also the seconds and tokens of `prepare` for the GPU presets, made
anew in a folder that is thrown away.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import django

from benchmarks.contract import load
from benchmarks.nanochat.tokens import prepare
from runners import cuda, device
from runners.sandbox import Sandbox

PRESET = "gpu-60s"


def slot_of(gpu: device.Gpu) -> dict[str, Any]:
    from runners.slot import gpu_slots  # needs Django's settings

    slot = gpu_slots(gpu.number)[0]
    began = time.monotonic()
    with Sandbox.start(slot.index, inside=Path(__file__).parent / "inside", **slot.options) as box:
        isolation = box.isolation
    attacked = time.monotonic()
    slot.prepare("nanochat")
    ready = time.monotonic()
    slot.close()
    return {
        "number": gpu.number, "name": gpu.name, "nodes": cuda.nodes(gpu.number), "isolation_level": isolation.level,
        "not_held": [row.name for row in isolation.rows if not row.passed],
        "isolation_seconds": round(attacked - began, 2), "ready_seconds": round(ready - attacked, 2),
    }  # fmt: skip


def prepared(folder: Path) -> dict[str, Any]:
    contract = load("nanochat")
    preset = contract.preset(PRESET)
    with tempfile.TemporaryDirectory(prefix="machine-") as root:
        before, began = os.times(), time.monotonic()
        source = prepare.from_folder(folder, Path(root))
        needed = prepare.needed_tokens(contract, preset)
        _, made = prepare.prepare(Path(root), source, preset.vocabulary, needed, lambda line: None)
        after = os.times()
        return {
            "seconds": round(time.monotonic() - began, 1),
            "cpu_seconds": round(after.user + after.system - before.user - before.system, 1),
            "cores": len(os.sched_getaffinity(0)),
            "tokens": {name: part.tokens for name, part in made.files.items()},
            "bytes": {name: part.bytes for name, part in made.files.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.machine", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of text to prepare as well")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    gpus = device.gpus()
    row: dict[str, Any] = {"missing": device.missing("cuda"), "gpus": [slot_of(gpu) for gpu in gpus]}
    if options.data:
        row["prepare"] = prepared(options.data)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
