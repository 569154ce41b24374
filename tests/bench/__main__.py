"""`python -m tests.bench [PART ...]`: {part: {figure, unit, command, ...}} on stdout, progress on stderr."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable

from tests.bench import charts, first_run, graph, ingest, kernels, live, memory, pages, planted, watched

# Every part by name: what it measures, and the function that does.
PARTS: dict[str, tuple[str, Callable[[], dict[str, object]]]] = {
    "charts": (charts.ABOUT, charts.measure),
    "graph": (graph.ABOUT, graph.measure),
    "ingest": (ingest.ABOUT, ingest.measure),
    "live": (live.ABOUT, live.measure),
    "project_page": (pages.ABOUT, pages.measure),
}
# The same, but only when named: they take many minutes.
ON_REQUEST: dict[str, tuple[str, Callable[[], dict[str, object]]]] = {
    "first_run": (first_run.ABOUT, first_run.measure),
    "kernels": (kernels.ABOUT, kernels.measure),
    "memory": (memory.ABOUT, memory.measure),
    "nulls": (planted.ABOUT["nulls"], planted.measure_nulls),
    "planted": (planted.ABOUT["planted"], planted.measure_planted),
    "watched": (watched.ABOUT, watched.measure),
}


def main() -> None:
    about = "\n".join(f"  {name:10} {text}" for name, (text, _) in (PARTS | ON_REQUEST).items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure the lab on this machine.",
        epilog=f"parts (when none is named, all but {', '.join(ON_REQUEST)}):\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure")
    parser.add_argument("--json", action="store_true", help="the table on one line")
    parser.add_argument("--quick", action="store_true", help="shorter turns where a part has them: for a look only")
    options = parser.parse_args()
    if options.quick:
        os.environ["BENCH_QUICK"] = "1"
    if unknown := [part for part in options.parts if part not in PARTS | ON_REQUEST]:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS | ON_REQUEST)}")
    names = options.parts or list(PARTS)
    table = {name: (PARTS | ON_REQUEST)[name][1]() for name in names}
    print(json.dumps(table, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
