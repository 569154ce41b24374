"""What the tests of the live path share: a browser tab on the real ASGI application, and a reader of its frames."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.db import connections
from django.test import Client

from research.models import Series
from tests.bench import live
from tests.point_play import stretch

Value = TypeVar("Value")
ORIGIN = "http://localhost"


def blocks(frame: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """(header, payload) of each block of a frame."""
    version, _, count, _ = struct.unpack_from("<BBHI", frame)
    found = live.blocks(frame[8:])
    assert (version, len(found)) == (1, count)
    assert all(len(payload) % 8 == 0 for _, payload in found)
    return found


def points(payload: bytes, header: dict[str, Any]) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """(metric, first, steps, values) of a block of points."""
    numbers, at = np.frombuffer(payload, "<f8"), 0
    for series in header["series"]:
        count = series["count"]
        yield series["metric"], series["first"], numbers[at : at + count], numbers[at + count : at + 2 * count]
        at += 2 * count
    assert at == len(numbers)


def history(frame: bytes) -> dict[tuple[str, str], dict[str, Any]]:
    """(topic, metric) -> what the header says of the series, its arrays, and its marks by bucket."""
    found = {}
    for header, payload in blocks(frame):
        at = 0
        for series in header["series"]:
            n, whole, m = series["n"], series["whole"], series["marks"]
            gaps, at = _array(payload, at, series["gaps"], n if whole else 2 * n)
            values, at = _array(payload, at, series["values"], n if whole else 3 * n)
            marks, at = _array(payload, at, "u4", 4 * m)
            steps = series["step"] + np.cumsum(gaps.astype("f8"))
            low, high, last = (values,) * 3 if whole else values.reshape(3, -1)
            found[header["topic"], series["metric"]] = series | {
                "generation": header["generation"],
                "first_step": steps if whole else steps[::2], "last_step": steps if whole else steps[1::2],
                "low": low, "high": high, "last": last,
                "marked": {bucket: tuple(counts) for bucket, *counts in marks.reshape(4, -1).T.tolist()},
            }  # fmt: skip
        assert at == len(payload)
    return found


def _array(payload: bytes, at: int, kind: str, count: int) -> tuple[np.ndarray, int]:
    """An array written by planes, and where the next one begins."""
    size = np.dtype(kind).itemsize
    planes = np.frombuffer(payload, "u1", size * count, at).reshape(size, -1)
    return np.ascontiguousarray(planes.T).view(f"<{kind}").ravel(), at + -(-size * count // 8) * 8


async def in_thread(call: Callable[..., Value], *arguments: object) -> Value:
    """Rows are read and written beside the loop, as other processes do."""

    def run() -> Value:
        try:
            return call(*arguments)
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)


def session_of(user: Any) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def store(lease: Any, first: int, count: int, *metrics: str) -> None:
    """Points whose values tell their sequence numbers (see point_play)."""
    outcomes = Series.objects.append([stretch(lease, first, count, metric) for metric in metrics or ("loss",)])
    assert set(outcomes) == {"stored"}


class Tab:
    """One browser tab. It keeps what it is told, and fails where a point is missing or comes twice."""

    def __init__(self, session: str | None, origin: str = ORIGIN) -> None:
        from recursive_web.asgi import application

        headers = [(b"host", b"localhost"), (b"origin", origin.encode())]
        if session is not None:
            headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={session}".encode()))
        self.socket = WebsocketCommunicator(application, "/ws/", headers)
        self.texts: list[dict[str, Any]] = []
        self.frames: list[int] = []  # numbers
        self.got: dict[tuple[str, str], list[float]] = {}  # values by topic and metric
        self.generation: dict[str, int] = {}
        self.closed: int | None = None
        self.acks = True

    async def __aenter__(self) -> Tab:
        connected, _ = await self.socket.connect(timeout=10)
        assert connected
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.socket.disconnect(timeout=10)

    async def say(self, **message: object) -> None:
        await self.socket.send_to(text_data=json.dumps(message))

    async def follow(self, *topics: str, cursor: dict[str, int] | None = None, **more: int) -> None:
        await self.say(points={topic: {"cursor": cursor or {}, **more} for topic in topics})

    async def hear(self, timeout: float = 10) -> dict[str, Any] | bytes:
        """The next thing that comes, kept."""
        message = await self.socket.receive_output(timeout)
        if message["type"] == "websocket.close":
            self.closed = message["code"]
            return {"closed": message["code"]}
        if message.get("text") is not None:
            self.texts.append(json.loads(message["text"]))
            if "restart" in self.texts[-1]:
                self._forget(self.texts[-1]["restart"])
            return self.texts[-1]
        await self._take(message["bytes"])
        return message["bytes"]

    def _forget(self, topic: str) -> None:
        self.got = {key: values for key, values in self.got.items() if key[0] != topic}
        self.generation.pop(topic, None)

    async def _take(self, frame: bytes) -> None:
        self.frames.append(struct.unpack_from("<I", frame, 4)[0])
        if self.acks:
            await self.say(ack=self.frames[-1])
        for header, payload in blocks(frame):
            topic = header["topic"]
            assert self.generation.setdefault(topic, header["generation"]) == header["generation"]
            for metric, first, steps, values in points(payload, header):
                got = self.got.setdefault((topic, metric), [])
                assert first == len(got), f"{metric} goes on at {first}, after {len(got)} points"
                assert steps.tolist() == list(range(first, first + len(steps)))
                got += values.tolist()

    async def until(self, ready: Callable[[], bool], timeout: float = 15) -> None:
        async with asyncio.timeout(timeout):
            while not ready():
                await self.hear(timeout)

    async def text(self, key: str) -> dict[str, Any]:
        """The next text message of this kind."""
        seen = len(self.texts)
        await self.until(lambda: any(key in text for text in self.texts[seen:]))
        return next(text for text in self.texts[seen:] if key in text)

    async def heard(self) -> dict[str, Any]:
        """Whatever was said before has been read by the server; its answer."""
        await self.say(ping=1)
        return await self.text("pong")

    async def is_silent(self, seconds: float = 0.4) -> bool:
        return bool(await self.socket.receive_nothing(seconds, 0.02))

    def count(self, topic: str, metric: str = "loss") -> int:
        return len(self.got.get((topic, metric), []))
