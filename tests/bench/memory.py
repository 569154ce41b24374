"""Is memory worth anything? Real campaigns of the catalogue researcher with and without it, on equal device time.

The arms take turns on one machine, each campaign in a data folder of its own; `waste` of research/management counts
both by the same rules. Only when named: six campaigns of some six minutes. `--quick`: one of each, too short to tell.
"""

from __future__ import annotations

import json
import os
import sys
import time
from statistics import fmean
from typing import Any

from tests.bench.web import in_a_folder

ABOUT = "campaigns with and without memory on equal device time: duplicates, waste, gain per device-second (40 minutes)"
COMMAND = "python -m tests.bench memory"
BENCHMARK, PRESET, START = "nanochat", "smoke", "vanilla"
THREADS, CAMPAIGNS, DEVICE_SECONDS, MINUTES = 2, 3, 600.0, 12.0  # minutes: where one is cut off at the latest
QUICK_DEVICE_SECONDS, QUICK_MINUTES = 120.0, 4.0
KEPT = (
    "gain_percent", "device_seconds", "wall_seconds", "trials", "merges", "experiments", "proposed_and_measured",
    "duplicates", "wasted", "wasted_device_seconds", "refused_ideas", "gain_per_device_second", "isolation_level",
)  # fmt: skip


def measure() -> dict[str, object]:
    quick = "BENCH_QUICK" in os.environ
    rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for turn in range(1 if quick else CAMPAIGNS):
        for memory in (True, False) if turn % 2 == 0 else (False, True):
            rows[memory].append(campaign(memory, quick))
            print(f"memory {'on' if memory else 'off'}, turn {turn + 1}: {rows[memory][-1]}", file=sys.stderr)
    arms = {"with": arm(rows[True]), "without": arm(rows[False])}
    figure = arms["with"]["duplicate_share"]
    return {
        "figure": figure, "unit": "of the experiments with memory repeat one", "command": COMMAND,
        "benchmark": f"{BENCHMARK} {PRESET} {START}", "device_seconds_each": budget(quick)[0], "target": 0.02, **arms,
    }  # fmt: skip


def budget(quick: bool) -> tuple[float, float]:
    return (QUICK_DEVICE_SECONDS, QUICK_MINUTES) if quick else (DEVICE_SECONDS, MINUTES)


def campaign(memory: bool, quick: bool) -> dict[str, Any]:
    seconds, minutes = budget(quick)
    arguments = [
        "campaign", "--benchmark", BENCHMARK, "--preset", PRESET, "--start", START, "--threads", str(THREADS),
        "--minutes", str(minutes), "--max-device-seconds", str(seconds), "--auto-approve", "--json",
    ]  # fmt: skip
    began = time.monotonic()
    told: dict[str, Any] = json.loads(in_a_folder("manage", *arguments, *([] if memory else ["--no-memory"])))
    return {name: told[name] for name in KEPT} | {"seconds": round(time.monotonic() - began, 1)}


def arm(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the campaigns of one arm, and the campaigns themselves."""
    measured = sum(row["proposed_and_measured"] for row in rows)
    return {
        "duplicate_share": share(rows, "duplicates", measured),
        "wasted_share": share(rows, "wasted", measured),
        "wasted_device_share": share(rows, "wasted_device_seconds", sum(row["device_seconds"] for row in rows)),
        "gain_percent": round(fmean(row["gain_percent"] or 0.0 for row in rows), 3),
        "gain_per_1000_device_seconds": round(1_000 * fmean(row["gain_per_device_second"] or 0.0 for row in rows), 5),
        "campaigns": rows,
    }


def share(rows: list[dict[str, Any]], name: str, whole: float) -> float | None:
    return round(sum(row[name] for row in rows) / whole, 4) if whole else None
