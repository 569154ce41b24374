"""The live path under load: a writing process, the real web process, and many browsers that check every point.

A row is four points of one of TRIALS trials; ROWS rows a second are emitted evenly, stored every 50 ms as a worker
does (`Series.objects.append`), and carry the time of their emission. Each browser follows all the trials. It checks
that every series goes on where it ended (else: gaps, duplicates) and, at the end, that it has all of it (else: lost).

Turns: 50 browsers; 200 browsers; 50 browsers with ten that do not read, and one that is cut off for a minute. The
browsers are one process, which takes its share of the machine: its CPU is in the table.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.bench.web import ROOT, Web, cpu_s, in_a_folder, prepare

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

ABOUT = "ms from emission to browser at 1,600 rows/s, what stalled sockets cost, refill after a cut"
COMMAND = "python -m tests.bench live"
TRIALS, ROWS, METRICS = 8, 1_600, ("loss", "val/loss", "lr", "grad_norm")
RATE = ROWS // TRIALS  # rows/s of one trial
FLUSH = 0.05
QUICK = bool(os.environ.get("BENCH_QUICK"))
SECONDS, CUT, SETTLE = (6, 3, 1) if QUICK else (30, 60, 3)
STALLED = 10
TARGET = {"p50_ms": 100, "p95_ms": 250, "stalled_mb": 20, "refill_s": 1}


def measure() -> dict[str, object]:
    turns = json.loads(in_a_folder("tests.bench.live"))
    return {
        "figure": turns["50"]["p95_ms"],
        "unit": "ms from emission to browser, p95 at 50 browsers",
        "command": COMMAND,
        "target": TARGET,
        "rows_a_second": ROWS,
        "points_a_second": ROWS * len(METRICS),
        **turns,
    }


def main() -> None:
    cookie = prepare()
    found = {}
    with Web() as web:
        for name, turn in {
            "50": Turn(web, cookie, browsers=50, seconds=SECONDS),
            "200": Turn(web, cookie, browsers=200, seconds=SECONDS),
            "stalled_and_cut": Turn(web, cookie, browsers=50, seconds=CUT + 10, stalled=STALLED, cut=CUT),
        }.items():
            found[name] = asyncio.run(turn.play())
            print(f"live: {name}: {found[name]}", file=sys.stderr)
    print(json.dumps(found))


# The writer


def write(seconds: float, trials: list[int]) -> None:
    """Emit for so long; says when it has begun and ends when all is stored."""
    import django

    django.setup()
    from research.models import Series
    from runners.points import Stretch

    print("ready", flush=True)
    sys.stdin.readline()
    begun, done = time.time(), 0
    while done < seconds * RATE:
        time.sleep(max(begun + (done / RATE) + FLUSH - time.time(), 0.0))
        now = min(int((time.time() - begun) * RATE), int(seconds * RATE))
        steps = np.arange(done, now)
        emitted = (begun + steps / RATE).astype("<f8").tobytes()
        Series.objects.append(
            [Stretch(trial, 1, metric, done, steps.tobytes(), emitted) for trial in trials for metric in METRICS]
        )
        done = now


# The browsers


@dataclass
class Frames:
    """Frames that many browsers get are read once."""

    seen: dict[bytes, tuple[list[tuple[str, int, int]], np.ndarray]] = field(default_factory=dict)

    def read(self, body: bytes) -> tuple[list[tuple[str, int, int]], np.ndarray]:
        """(series, first, count) of each series, and when the rows of the first metric were emitted."""
        found = self.seen.get(body)
        if found is None:
            series, emitted = [], []
            for header, payload in blocks(body):
                at = 0
                for line in header["series"]:
                    series.append((header["topic"] + line["metric"], line["first"], line["count"]))
                    if line["metric"] == METRICS[0]:
                        emitted.append(np.frombuffer(payload, "<f8", line["count"], at + 8 * line["count"]))
                    at += 16 * line["count"]
            found = series, np.concatenate(emitted) if emitted else np.empty(0)
            if len(self.seen) > 200:
                self.seen.clear()
            self.seen[body] = found
        return found


def blocks(body: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """(header, payload) of each block of a frame without its prefix, by docs/decisions/0007 alone."""
    found, at = [], 0
    while at < len(body):
        header, payload = struct.unpack_from("<II", body, at)
        begin = at + 8 + header
        found.append((json.loads(body[at + 8 : begin]), body[begin : begin + payload]))
        at = begin + payload
    return found


@dataclass
class Browser:
    """One tab that follows all the trials."""

    web: Web
    cookie: str
    topics: list[str]
    frames: Frames
    next: dict[str, int] = field(default_factory=dict)  # sequence numbers, by topic and metric
    latencies: list[tuple[float, np.ndarray]] = field(default_factory=list)  # when it came, when it was emitted
    gaps: int = 0
    duplicates: int = 0
    messages: int = 0

    async def open(self) -> ClientConnection:
        from websockets.asyncio.client import connect

        socket = await connect(
            f"ws://{self.web.host}/ws/", origin=f"http://{self.web.host}", compression=None, max_size=None,  # type: ignore[arg-type]
            additional_headers={"Cookie": self.cookie}, open_timeout=60, ping_interval=None,
        )  # fmt: skip
        wanted: dict[str, Any] = {}
        for topic in self.topics:
            cursor = {metric: self.next[topic + metric] for metric in METRICS if topic + metric in self.next}
            wanted[topic] = {"generation": 1, "cursor": cursor}
        await socket.send(json.dumps({"points": wanted}))
        return socket

    async def watch(self, socket: ClientConnection) -> None:
        async for message in socket:
            if isinstance(message, str):
                if "hello" not in message:
                    sys.exit(f"live: the server says {message[:200]}")
                continue
            await self.take(socket, message)

    async def take(self, socket: ClientConnection, message: bytes) -> None:
        self.messages += 1
        number = int.from_bytes(message[4:8], "little")
        if number % 4 == 0:
            await socket.send(f'{{"ack":{number}}}')
        series, emitted = self.frames.read(message[8:])
        for name, first, count in series:
            expected = self.next.get(name, 0)
            self.gaps += max(first - expected, 0)
            self.duplicates += max(expected - first, 0)
            self.next[name] = first + count
        self.latencies.append((time.time(), emitted))

    def lost(self, rows: int) -> int:
        return sum(rows - self.next.get(topic + metric, 0) for topic in self.topics for metric in METRICS)


@dataclass
class Turn:
    web: Web
    cookie: str
    browsers: int
    seconds: float
    stalled: int = 0
    cut: float = 0

    async def play(self) -> dict[str, object]:
        leases = await asyncio.to_thread(_leases)
        topics, frames = [topic for _, topic in leases], Frames()
        tabs = [Browser(self.web, self.cookie, topics, frames) for _ in range(self.browsers)]
        writer = self._writer([trial for trial, _ in leases])
        sockets = [await tab.open() for tab in tabs]
        watching = [asyncio.create_task(tab.watch(socket)) for tab, socket in zip(tabs, sockets, strict=True)]
        assert writer.stdin and writer.stdout
        await asyncio.to_thread(writer.stdout.readline)
        await asyncio.sleep(SETTLE)
        memory = self.web.memory_mb()
        idle = [await Browser(self.web, self.cookie, topics, frames).open() for _ in range(self.stalled)]
        for socket in idle:
            socket.transport.pause_reading()
        before = [self.web.cpu_s(), time.process_time(), cpu_s(writer.pid)]
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
        refill = await self._cut(tabs, sockets, watching) if self.cut else {}
        if await asyncio.to_thread(writer.wait):
            sys.exit("live: the writer failed; its error stands above")
        cpu = [self.web.cpu_s(), time.process_time(), 0.0]
        rows = int(self.seconds * RATE)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(tab.lost(rows) for tab in tabs):
            await asyncio.sleep(0.05)
        after = self.web.memory_mb()
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        for socket in (*sockets, *idle):
            socket.transport.abort()
        found: dict[str, object] = {
            **_latency(tabs[1:]),
            "points_a_browser": rows * TRIALS * len(METRICS),
            "gaps": sum(tab.gaps for tab in tabs),
            "duplicates": sum(tab.duplicates for tab in tabs),
            "lost": sum(tab.lost(rows) for tab in tabs),
            "frames_a_second": round(sum(tab.messages for tab in tabs) / self.seconds),
            "web_cpu_percent": round(100 * (cpu[0] - before[0]) / self.seconds, 1),
            "browsers_cpu_percent": round(100 * (cpu[1] - before[1]) / self.seconds, 1),
            "web_mb_before": memory,
            "web_mb_after": after,
        }
        if self.stalled:
            found |= {"stalled": self.stalled, "stalled_mb": round(after["own"] - memory["own"], 1)}
        return found | refill

    def _writer(self, trials: list[int]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.bench.live", "write", str(self.seconds), *map(str, trials)]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    async def _cut(
        self, tabs: list[Browser], sockets: list[ClientConnection], watching: list[asyncio.Task[None]]
    ) -> dict[str, object]:
        """The first browser loses its socket, comes back later, and has what the others have."""
        await asyncio.sleep(3)
        watching[0].cancel()
        sockets[0].transport.abort()
        await asyncio.sleep(self.cut)
        tab, other, name = tabs[0], tabs[1], tabs[0].topics[-1] + METRICS[-1]
        missed = dict(other.next)
        points = sum(missed.values()) - sum(tab.next.values())
        begun = time.monotonic()
        sockets[0] = await tab.open()
        watching[0] = asyncio.create_task(tab.watch(sockets[0]))
        while any(tab.next.get(series, 0) < seq for series, seq in missed.items()):
            if watching[0].done() or time.monotonic() - begun > 60:
                sys.exit(f"live: the browser that came back is at {tab.next.get(name)} of {missed[name]}")
            await asyncio.sleep(0.005)
        return {"cut_s": self.cut, "refill_points": points, "refill_s": round(time.monotonic() - begun, 3)}


def _leases() -> list[tuple[int, str]]:
    from django.db import connections

    from tests.bench.ingest import leased_trials

    try:
        return [(lease.trial_id, f"trial:{lease.trial.public_id}") for lease in leased_trials(TRIALS)]
    finally:
        connections.close_all()


def _latency(tabs: list[Browser]) -> dict[str, float]:
    """Over all rows of all browsers, each from its emission until its frame was there."""
    delays = np.concatenate([at - emitted for tab in tabs for at, emitted in tab.latencies])
    return {f"p{share}_ms": round(1_000 * float(np.percentile(delays, share)), 1) for share in (50, 95, 99)} | {
        "worst_ms": round(1_000 * float(delays.max()), 1)
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(float(sys.argv[2]), [int(trial) for trial in sys.argv[3:]])
    else:
        main()
