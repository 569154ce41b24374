"""Whether a browser hears every point of a campaign: `python -m tests.gpu.watching --seconds 500`, one JSON object.

Beside a campaign on the same data folder: the real web process, and one websocket that follows every trial from when it
is leased. After so many seconds, or at SIGTERM, each series it heard is held against the table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recursive_web.settings")
LOOK_SECONDS = 0.5  # between two looks for trials that have begun
SETTLE_SECONDS = 10.0  # for the last points
TABLES_SECONDS = 120.0
WATCHER = "watcher"

Line = tuple[str, int, str]  # topic, generation, metric


@dataclass
class Heard:
    """What came over the socket. `next`: of each series the first sequence number that has not come."""

    next: dict[Line, int] = field(default_factory=lambda: defaultdict(int))
    gaps: int = 0
    duplicates: int = 0
    frames: int = 0

    def take(self, body: bytes) -> None:
        from tests.bench.live import blocks

        self.frames += 1
        for header, _ in blocks(body):
            for line in header["series"]:
                name = (header["topic"], header["generation"], line["metric"])
                self.gaps += max(0, line["first"] - self.next[name])
                self.duplicates += max(0, self.next[name] - line["first"])
                self.next[name] = line["first"] + line["count"]

    def wanted(self, topic: str) -> dict[str, Any]:
        generations = [generation for name, generation, _ in self.next if name == topic]
        if not generations:
            return {}
        newest = max(generations)
        mine = {line[2]: seq for line, seq in self.next.items() if line[:2] == (topic, newest)}
        return {"generation": newest, "cursor": mine}

    def missing(self, stored: dict[Line, int]) -> int:
        return sum(max(0, count - self.next.get(line, 0)) for line, count in stored.items())


def patiently(ask: Callable[[], str]) -> str:
    """The campaign that is started beside this makes the tables."""
    from django.db import Error

    deadline = time.monotonic() + TABLES_SECONDS
    while True:
        try:
            return ask()
        except Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def leased_since(newest: int) -> set[str]:
    from django.db import connections

    from research.models import Lease

    try:
        return {
            f"trial:{name}" for name in Lease.objects.filter(pk__gt=newest).values_list("trial__public_id", flat=True)
        }
    finally:
        connections.close_all()


def newest_lease() -> int:
    from research.models import Lease

    return Lease.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


def stored(topics: set[str]) -> dict[Line, int]:
    """Points in the table, of each trial's newest lease."""
    from django.db import connections

    from research.models import Series

    names = {topic.removeprefix("trial:") for topic in topics}
    try:
        rows = Series.objects.newest().filter(trial__public_id__in=names)
        found = rows.values_list("trial__public_id", "generation", "metric", "next_seq")
        return {(f"trial:{name}", generation, metric): count for name, generation, metric, count in found}
    finally:
        connections.close_all()


async def watch(host: str, said: str, seconds: float, over: asyncio.Event) -> dict[str, Any]:
    from websockets.asyncio.client import connect

    heard, topics, begun = Heard(), set[str](), time.monotonic()
    before = await asyncio.to_thread(newest_lease)
    async with connect(
        f"ws://{host}/ws/", origin=f"http://{host}", compression=None, max_size=None,  # type: ignore[arg-type]
        additional_headers={"Cookie": said}, open_timeout=60, ping_interval=None,
    ) as socket:  # fmt: skip

        async def listen() -> None:
            async for message in socket:
                if isinstance(message, str) and '"error"' in message:
                    raise RuntimeError(f"the server says {message[:200]}")
                if isinstance(message, bytes):
                    heard.take(message[8:])
                    await socket.send(json.dumps({"ack": int.from_bytes(message[4:8], "little")}))

        listening = asyncio.create_task(listen())
        while time.monotonic() - begun < seconds and not over.is_set():
            found = await asyncio.to_thread(leased_since, before)
            if found - topics:
                topics |= found
                await socket.send(json.dumps({"points": {topic: heard.wanted(topic) for topic in sorted(topics)}}))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), LOOK_SECONDS)
        deadline = time.monotonic() + SETTLE_SECONDS
        while (rows := await asyncio.to_thread(stored, topics)) and heard.missing(rows):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(LOOK_SECONDS)
        if listening.done():
            listening.result()
        listening.cancel()
    return {
        "seconds": round(time.monotonic() - begun, 1), "trials": len(topics), "series": len(rows),
        "points_in_the_table": sum(rows.values()), "missing": heard.missing(rows), "gaps": heard.gaps,
        "duplicates": heard.duplicates, "frames": heard.frames,
    }  # fmt: skip


async def stand(seconds: float) -> dict[str, Any]:
    from tests.bench.web import Web, cookie_of

    over, loop = asyncio.Event(), asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, over.set)
    said = await asyncio.to_thread(patiently, lambda: cookie_of(WATCHER))
    web = Web(LAB_HOSTS="127.0.0.1")
    await asyncio.to_thread(web.start)
    try:
        return await watch(web.host, said, seconds, over)
    finally:
        web.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=500.0)
    options = parser.parse_args()
    import django

    django.setup()
    found = asyncio.run(stand(options.seconds))
    print(json.dumps(found))
    return 1 if found["missing"] or found["gaps"] or found["duplicates"] else 0


if __name__ == "__main__":
    sys.exit(main())
