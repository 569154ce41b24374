"""`anchors`: show what scores are made from, of one provenance at a time, or measure baselines on this machine."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kernels import anchors, bounds, measured, score
from benchmarks.kernels.anchors import Anchors, Provenance
from benchmarks.kernels.formats.workload import Problem, Workload
from benchmarks.kernels.sweep import EAGER, VARIANTS, Task, sweep
from runners.device import missing
from runners.sandbox import SandboxBroken

HELP = "the bounds and baselines that scores are made from: published, scaled to a device, or measured"


def arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--show", action="store_true", help="print them; nothing is measured")
    what.add_argument("--measure", choices=("cuda", "cpu"), help="measure baselines on this device into --store")
    parser.add_argument("--problems", type=Path, help="a folder of problems instead of our own")
    parser.add_argument("--store", type=Path, help="what was measured: read by --show, continued by --measure")
    parser.add_argument("--device", default="H200", help="scale what was published to this device; B200: as published")
    parser.add_argument("--json", action="store_true", help="everything on one line")
    parser.add_argument("--variants", nargs="+", default=[EAGER], choices=VARIANTS, help="what is measured")
    parser.add_argument("--ends", action="store_true", help="of each problem the first, middle and last workload alone")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so long; the store is continued")


def run(options: argparse.Namespace, problems: Sequence[Problem]) -> int:
    """Raises AnchorError for damaged files, BoundError for an unknown device, SandboxBroken for a missing one."""
    if options.measure:
        return measure(options, problems)
    if options.store:
        shown = from_store(options.store, problems)
    else:
        published = anchors.published(problems)
        as_published = bounds.datasheet(options.device) is bounds.DATASHEET[anchors.PUBLISHED_FOR]
        shown = published if as_published else anchors.scaled(published, options.device)
    if options.json:
        print(json.dumps(as_rows(shown)))
        return 0
    print(f"{shown.device}, {shown.provenance} anchors; us")
    print(f"{'problem':44} {'workload':>8} {'T_SOL':>10} {'T_b':>12} {'headroom':>9}  {'':12} variant")
    for problem, of_problem in shown.figures.items():
        for uuid, anchor in of_problem.items():
            kind = score.headroom(anchor)
            remark = "" if kind is score.Headroom.USUAL else kind
            print(f"{problem[:44]:44} {uuid[:8]:>8} {anchor.bound_ms * 1e3:10.2f} {anchor.baseline_ms * 1e3:12.2f} "
                  f"{anchor.headroom:9.2f}  {remark:12} {anchor.variant}")  # fmt: skip
    print(summary(shown, problems))
    return 0


def measure(options: argparse.Namespace, problems: Sequence[Problem]) -> int:
    """Exit code 1 where something is left to do."""
    if not options.store:
        raise anchors.AnchorError("measured baselines are kept: name the file by --store")
    if why := missing(options.measure):
        raise SandboxBroken(why)
    store = measured.Store(options.store)
    tried = store.done()
    tasks = [
        Task(str(problem.folder), problem.name, workload.uuid, variant)
        for variant in options.variants
        for problem in problems
        for workload in (_ends(problem.workloads) if options.ends else problem.workloads)
        if (problem.name, workload.uuid, variant) not in tried
    ]
    done = passed = 0
    for row in sweep(tasks, options.measure, options.seconds):
        store.append(row)
        done, passed = done + 1, passed + (row.status == measured.PASSED)
        latency = row.status if row.latency_ms is None else f"{1e3 * row.latency_ms:.2f} us"
        words = f"{done} of {len(tasks)}: {row.problem} {row.uuid[:8]} {row.variant}: {latency}"
        print(words, file=sys.stderr, flush=True)
    told = {"measured": done, "passed": passed, "left": len(tasks) - done, "before": len(tried)}
    print(json.dumps(told) if options.json else ", ".join(f"{value} {name}" for name, value in told.items()))
    return int(done < len(tasks))


def _ends(workloads: Sequence[Workload]) -> list[Workload]:
    places = dict.fromkeys((0, len(workloads) // 2, len(workloads) - 1))
    return [workloads[place] for place in places]


def from_store(path: Path, problems: Sequence[Problem]) -> Anchors:
    """Measured baselines beside bounds computed for the store's device.

    Bounds that were beaten are left out. Raises AnchorError where the file is missing or damaged.
    """
    if not path.is_file():
        raise anchors.AnchorError(f"{path}: no such store of measured baselines; measure some first")
    store = measured.Store(path)
    rows = store.rows()
    if not rows:
        return Anchors("", Provenance.MEASURED, {})
    from benchmarks.kernels.commands.sol import lines  # torch: seconds to import

    given = {row.problem for row in rows}
    bounds_ms: dict[str, dict[str, float]] = {}
    for line in lines([each for each in problems if each.definition.name in given], bounds.datasheet(rows[0].device)):
        if line.computed_ms is not None:
            bounds_ms.setdefault(line.problem, {})[line.uuid] = line.computed_ms
    return measured.trusted(store.anchors(bounds_ms))


def as_rows(shown: Anchors) -> dict[str, object]:
    rows = [{"problem": problem, "uuid": uuid, "bound_ms": anchor.bound_ms, "baseline_ms": anchor.baseline_ms,
             "variant": anchor.variant, "headroom": score.headroom(anchor)}
            for problem, of_problem in shown.figures.items() for uuid, anchor in of_problem.items()]  # fmt: skip
    return {"device": shown.device, "provenance": shown.provenance, "anchors": rows}


def summary(shown: Anchors, problems: Sequence[Problem]) -> str:
    wanted = sum(len(problem.workloads) for problem in problems)
    kinds = Counter(score.headroom(anchor) for of_problem in shown.figures.values() for anchor in of_problem.values())
    text = ", ".join(f"{kinds[kind]} {kind}" for kind in score.Headroom)
    return f"{len(shown)} anchors for {wanted} workloads of {len(problems)} problems; headroom: {text}"
