"""A socket as the hub sees it: a place in each stream and credit, never a queue.

What it cannot be given now is read again from the table later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from time import monotonic

from research.live.access import Access
from research.live.frames import COMPACT, POINTS, frame
from research.live.messages import Points, Watch
from research.live.tail import MAX_POINTS, REFUSAL, UNKNOWN, Answers, Place

CREDIT = 8  # frames that may be unacknowledged


class Socket:
    """What the hub knows of one browser tab."""

    def __init__(
        self,
        session_key: str | None,
        send: Callable[[str | bytes], Awaitable[None]],
        close: Callable[[int], Awaitable[None]],
    ) -> None:
        self.session_key, self._send, self._close = session_key, send, close
        self.access = Access(frozenset(), 0, {})
        self.checked = self.served = monotonic()
        self.topics: frozenset[str] = frozenset()
        self.seq = 0
        self.places: dict[str, Place] = {}
        self.behind = 0  # how many streams have more to read than they got
        self.sent = self.acked = 0
        self.stalled: float | None = None  # since when it has had no credit
        self.is_sending = self.is_closed = False

    @property
    def has_credit(self) -> bool:
        return self.sent - self.acked < CREDIT

    @property
    def is_ready(self) -> bool:
        return self.has_credit and not self.is_sending and not self.is_closed

    @property
    def asked(self) -> frozenset[str]:
        return self.topics | self.places.keys()

    def ack(self, number: int) -> bool:
        """False: no such frame was sent."""
        if number > self.sent:
            return False
        self.acked = max(self.acked, number)
        if self.has_credit:
            self.stalled = None
        return True

    def watch(self, message: Watch, found: Mapping[str, int]) -> None:
        self.topics, self.seq = message.topics & found.keys(), message.since
        self.behind = max(self.behind, 1)

    def follow(self, message: Points, found: Mapping[str, int]) -> None:
        """A stream that runs already goes on where it is: the socket is in order, so the browser gets there."""
        places = {}
        for topic in message.trials.keys() & found.keys():
            generation, cursor = message.trials[topic].generation, message.trials[topic].cursor
            begin = Place(topic, found[topic], UNKNOWN if generation is None else generation, cursor)
            places[topic] = self.places.get(topic, begin)
        self.places = places
        self.behind = max(len(places), 1)

    def drop(self, topics: frozenset[str]) -> None:
        self.topics -= topics
        self.places = {topic: place for topic, place in self.places.items() if topic not in topics}

    def take(self, answers: Answers) -> list[str | bytes]:
        """Step on in every stream; the messages that say so."""
        before, blocks, after = self._take_news(answers), [], []
        points, behind = 0, int(bool(self.topics) and self.seq not in answers.news)
        for topic, place in list(self.places.items()):
            step = answers.steps.get(place)
            if step is None or (points and points + step.points > MAX_POINTS):
                behind += 1
                continue
            before += [step.before] if step.before else []
            blocks += [step.block] if step.block else []
            after += [step.after] if step.after else []
            points += step.points
            behind += step.more
            if step.then is None:
                del self.places[topic]
            else:
                self.places[topic] = step.then
        self.behind = behind
        return [*before, *self._frame(blocks), *after]

    def _take_news(self, answers: Answers) -> list[str]:
        news = answers.news.get(self.seq) if self.topics else None
        if news is None:
            return []
        heard = {topic for project, topics in news.events if self.access.hears(project) for topic in topics}
        changed = self.topics if news.everything else self.topics & heard
        self.seq = news.head
        return [COMPACT({"changed": sorted(changed), "seq": news.head})] if changed else []

    def _frame(self, blocks: list[bytes]) -> list[bytes]:
        if not blocks:
            return []
        self.sent += 1
        if not self.has_credit:
            self.stalled = monotonic()
        return [frame(POINTS, blocks, self.sent)]

    async def send(self, *messages: str | bytes) -> None:
        for message in messages:
            if not self.is_closed:
                await self._send(message)

    async def deliver(self, messages: list[str | bytes]) -> None:
        """Frames, in a task of their own: a server may make the sender wait. Meanwhile the socket is not ready."""
        self.is_sending = True
        try:
            await self.send(*messages)
        except OSError:  # it went away; its consumer hears of that by itself
            self.is_closed = True
        finally:
            self.is_sending = False

    async def close(self, code: int) -> None:
        if not self.is_closed:
            self.is_closed = True
            await self._close(code)


def refusal(topic: str) -> str:
    return COMPACT({"refused": topic, "why": REFUSAL})
