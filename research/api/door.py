"""Who is at the door: the token of a request, and how often it may knock."""

from __future__ import annotations

import time
from collections import deque
from threading import Lock

from research.models import ApiToken

REQUESTS, WINDOW = 240, 60.0  # of one token, in so many seconds


class Unknown(Exception):
    """No token, or one that opens nothing (any more)."""


class TooOften(Exception):
    """This token has asked too often lately."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"this token has made {REQUESTS} requests within a minute")
        self.seconds = seconds


class Knocks:
    """When each token asked lately. In memory: the web process is one, and a restart forgives."""

    def __init__(self, requests: int = REQUESTS, window: float = WINDOW) -> None:
        self.requests, self.window = requests, window
        self.times: dict[int, deque[float]] = {}
        self.lock = Lock()

    def note(self, token: int, now: float) -> None:
        """Raises TooOften where it would be one too many."""
        with self.lock:
            times = self.times.setdefault(token, deque())
            while times and times[0] <= now - self.window:
                times.popleft()
            if len(times) >= self.requests:
                raise TooOften(times[0] + self.window - now)
            times.append(now)


knocks = Knocks()


def token_of(header: str, address: str = "") -> ApiToken:
    """The token of an Authorization header. Raises Unknown or TooOften."""
    kind, _, text = header.partition(" ")
    token = ApiToken.of(text, address) if kind.lower() == "bearer" and len(text) < 200 else None
    if token is None:
        raise Unknown("this needs a token: Authorization: Bearer lab_…")
    knocks.note(token.pk, time.monotonic())
    return token
