"""The history request of a charts page: 10 trials x 4 metrics x 20,000 points, at 1,000 buckets a line.

`measure` starts the real web process on a data folder of its own and asks it REQUESTS times for all forty lines, with
gzip, as a browser does. `live` is while the trials run, its chunks as they came every 50 ms; `compact` is after that.
The CPU is the web process's own, all of it: routing, session, permission, reading, buckets, gzip.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from http.client import HTTPConnection
from urllib.parse import urlencode

import numpy as np

from tests.bench.web import Web, in_a_folder, prepare

ABOUT = "CPU and bytes of the history of 10 trials x 4 metrics x 20k points"
COMMAND = "python -m tests.bench charts"
TRIALS, STEPS, BUCKETS, FLUSH = 10, 20_000, 1_000, 10
TARGET_MS, TARGET_KB = 60, 350


def measure() -> dict[str, object]:
    found = json.loads(in_a_folder("tests.bench.charts"))
    return {
        "figure": found["live"]["cpu_ms"],
        "unit": "ms of server CPU a request",
        "command": COMMAND,
        "target": {"cpu_ms": TARGET_MS, "gzip_kb": TARGET_KB},
        **found,
    }


def main() -> None:
    cookie = prepare()
    from research.models import Series
    from runners.points import Stretch
    from tests.bench.ingest import METRICS, leased_trials, values

    leases = leased_trials(TRIALS)
    sent = [values(number, STEPS) for number in range(TRIALS)]
    for first in range(0, STEPS, FLUSH):
        steps = np.arange(first, first + FLUSH, dtype="<i8").tobytes()
        Series.objects.append(
            [
                Stretch(lease.trial_id, 1, metric, first, steps, points[first : first + FLUSH, index].tobytes())
                for lease, points in zip(leases, sent, strict=True)
                for index, metric in enumerate(METRICS)
            ]
        )
    requests = 10 if os.environ.get("BENCH_QUICK") else 50
    path = "/series/?" + urlencode({"trial": [lease.trial.public_id for lease in leases], "n": BUCKETS}, doseq=True)
    with Web() as web:
        found: dict[str, object] = {"live": ask(web, cookie, path, requests)}
        for lease in leases:
            lease.release()
        for series in Series.objects.all():
            series.compact()
        found["compact"] = ask(web, cookie, path, requests)
        found["web_mb"] = web.memory_mb()
    print(json.dumps(found))


def ask(web: Web, cookie: str, path: str, requests: int) -> dict[str, float]:
    headers = {"Cookie": cookie, "Accept-Encoding": "gzip", "Host": web.host}
    connection = HTTPConnection(web.host)
    walls: list[float] = []
    for number in range(requests + 2):
        if number == 2:  # the first ones import numpy and warm the file cache
            begun = web.cpu_s()
        at = time.perf_counter()
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        walls.append(time.perf_counter() - at)
        if response.status != 200:
            sys.exit(f"charts: {response.status} {body[:200]!r}")
    cpu = (web.cpu_s() - begun) / requests
    return {
        "cpu_ms": round(1_000 * cpu, 1),
        "wall_ms": round(1_000 * sorted(walls[2:])[requests // 2], 1),
        "gzip_kb": round(len(body) / 1_000, 1),
        "plain_kb": round(len(gzip.decompress(body)) / 1_000, 1),
    }


if __name__ == "__main__":
    main()
