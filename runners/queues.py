"""Huey instances: the doorbells. A message carries one id and means "look at this row"; losing it costs seconds.

One queue for the control worker, one for the process of the sessions, one for each machine. Messages are signed JSON,
never pickles: whoever can write to the queue can at most ring. Embedded: SQLite files beside the database; scaled:
Redis (`REDIS_URL`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from django.conf import settings
from huey import Huey, PriorityRedisHuey, SqliteHuey
from huey.constants import EmptyData
from huey.registry import Message
from huey.serializer import SignedSerializer


class SignedJson(SignedSerializer):  # type: ignore[misc]  # huey has no types
    """Messages and results as JSON with an HMAC."""

    def _serialize(self, data: Any) -> bytes:
        return bytes(self._sign(json.dumps(data).encode()))

    def _deserialize(self, data: bytes) -> Any:
        content = json.loads(self._unsign(data))
        return Message(*content) if isinstance(content, list) else content


def make(name: str) -> Huey:
    serializer = SignedJson(secret=settings.SECRET_KEY, salt="recursive-lab")
    options: dict[str, Any] = {"name": name, "serializer": serializer, "results": False, "immediate": False}
    if settings.REDIS_URL:
        return PriorityRedisHuey(url=settings.REDIS_URL, **options)
    path = settings.DATA_DIR / "queues"
    path.mkdir(parents=True, exist_ok=True)
    return SqliteHuey(filename=str(path / f"{name}.sqlite3"), fsync=False, **options)


control, sessions = make("control"), make("sessions")


def beat(queue: Huey = control) -> None:
    """The worker of this queue lives: told through the queue, which is where the others look for it."""
    queue.storage.put_data("beat", str(time.time()).encode())


def last_beat(queue: Huey = control) -> float | None:
    """Seconds since the worker of this queue was last alive; None where it has never been."""
    found = queue.storage.peek_data("beat")
    return None if found is EmptyData else max(0.0, time.time() - float(found))


@cache
def machine_bell(name: str) -> Callable[[], Any]:
    """What rings the machine called `name`."""
    return make(f"machine-{name}").task(name="wake")(_nothing)  # type: ignore[no-any-return]


def machine_queue(name: str, on_ring: Callable[[], None]) -> Huey:
    """The machine's own end: `on_ring` is called for each message."""
    huey = make(f"machine-{name}")

    def wake() -> None:  # Huey names a task after its module too, so both ends must be defined in this one
        on_ring()

    huey.task(name="wake")(wake)
    return huey


def _nothing() -> None:
    """The sender's face of a task whose body runs elsewhere."""


def consumer_options(workers: int) -> dict[str, Any]:
    """Threads, a short poll (Huey's default lets an idle SQLite queue answer up to 10 s late), no periodic tasks."""
    return {
        "workers": workers, "worker_type": "thread", "periodic": False, "initial_delay": 0.05,
        "max_delay": 0.4, "check_worker_health": False, "scheduler_interval": 5,
    }  # fmt: skip
