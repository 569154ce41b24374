"""The hub of one event loop: who watches, when to read on, and who gets which bytes.

Rows are read on one thread of its own, so that a slow database delays news and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic, thread_time
from typing import TypeVar
from weakref import WeakKeyDictionary

from django.db import Error, connection

from research.live.access import look
from research.live.doorbell import MAX_PAUSE, Doorbell
from research.live.sockets import Socket, refusal
from research.live.tail import FEWEST_POINTS, MAX_POINTS, Answers, Place, read

log = logging.getLogger(__name__)
Value = TypeVar("Value")

TICK, MAX_TICK = 0.1, 0.5  # seconds between two frames of a socket that is on time
SHARE = 0.25  # of a core may go into sending; beyond it ticks come less often
STALLED = 60.0  # seconds without credit
RECHECK = 20.0  # seconds after which the next look at what a person may see is due,
SPREAD = 10  # seconds over which the looks are spread where all are due at once; 30 together
HOUSEKEEPING = 1.0
MAX_PLACES = 4_096  # of one tick
NOT_SIGNED_IN, NOT_READING, BROKEN = 4401, 4408, 1011


class Hub:
    _hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()

    @classmethod
    def here(cls) -> Hub:
        """The hub of the running loop."""
        return cls._hubs.setdefault(asyncio.get_running_loop(), cls())

    def __init__(self) -> None:
        self.sockets: set[Socket] = set()
        self._wake = asyncio.Event()
        self._has_news = False
        self._next = 0.0  # when the next tick may be
        self._pause = 0.0  # after an error of the database
        self._deliveries: set[asyncio.Task[None]] = set()
        self._reader: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None

    def join(self, socket: Socket) -> None:
        """The first one starts the hub."""
        self.sockets.add(socket)
        if self._task is None:
            self._reader = ThreadPoolExecutor(1, "live")
            self._task = asyncio.create_task(self._run(self._reader), name="live hub")
            self._task.add_done_callback(self._ended)

    async def leave(self, socket: Socket) -> None:
        """The last one stops it: nobody watches, nothing is read."""
        socket.is_closed = True
        self.sockets.discard(socket)
        if not self.sockets and self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait([task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        """After a failure browsers are sent away; they come back by themselves, to a new start."""
        if task.cancelled() or (failure := task.exception()) is None:
            return
        log.error("the live hub failed", exc_info=failure)
        self._task = None
        for socket in self.sockets:
            self._keep(socket.close(BROKEN))

    async def ask(self, question: Callable[..., Value], *arguments: object) -> Value:
        """Call a function that reads rows, on the reader's thread. A connection that failed is replaced."""

        def answer() -> Value:
            try:
                return question(*arguments)
            except Error:
                connection.close()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._reader, answer)

    def wake(self) -> None:
        """Somebody who is behind can be served."""
        self._wake.set()

    def _ring(self) -> None:
        self._has_news = True
        self._wake.set()

    async def _run(self, reader: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()

        def ring() -> None:
            loop.call_soon_threadsafe(self._ring)

        bell = Doorbell(ring)
        bell.start()
        try:
            while True:
                await self._sleep()
                await self._survive()
        finally:
            await asyncio.shield(asyncio.to_thread(_stop, bell, reader))

    async def _survive(self) -> None:
        """One turn; a database that does not answer is asked again, less and less often."""
        try:
            await self._turn()
            await self._keep_house()
            self._pause = 0.0
        except Error as error:
            if not self._pause:
                log.warning("the live path cannot read: %s", error)
            self._has_news = True
            self._pause = min(max(2 * self._pause, TICK), MAX_PAUSE)
            await asyncio.sleep(self._pause)

    async def _sleep(self) -> None:
        """Until somebody who is behind can be served, or a tick is due, or a second has passed."""
        self._wake.clear()
        if any(socket.behind and socket.is_ready for socket in self.sockets):
            return
        pause = max(self._next - monotonic(), 0.0) if self._has_news else HOUSEKEEPING
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):  # wait_for of Python 3.11 can swallow the end of the hub
                await self._wake.wait()

    async def _turn(self) -> None:
        """Everybody who is behind steps on; when a tick is due, everybody else too."""
        begun, cpu = monotonic(), thread_time()
        tick = self._has_news and begun >= self._next
        due = [socket for socket in self.sockets if socket.is_ready and (tick or socket.behind)]
        if tick:
            self._has_news = False
            for socket in self.sockets:
                if not socket.is_ready:
                    socket.behind = max(socket.behind, 1)  # it misses this one
        if due:
            due.sort(key=lambda socket: socket.served)
            answers = await self.ask(read, _places(due), {socket.seq for socket in due if socket.topics})
            await self._look_again(due, answers)
            for socket in due:
                self._serve(socket, answers)
            await asyncio.sleep(0)  # the deliveries have begun; where sending does not wait, they have ended
        if tick:
            self._next = begun + min(max((thread_time() - cpu) / SHARE, TICK), MAX_TICK)

    def _serve(self, socket: Socket, answers: Answers) -> None:
        if socket.is_ready and (messages := socket.take(answers)):
            socket.served = monotonic()
            self._keep(socket.deliver(messages))

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    async def _look_again(self, due: list[Socket], answers: Answers) -> None:
        """At everybody where roles have changed; else at those who may not know of a new project."""
        newest = max((news.newest_project for news in answers.news.values()), default=0)
        members = any(news.members for news in answers.news.values())
        for socket in list(self.sockets) if members else due:
            if members or (socket.topics and socket.access.newest < newest):
                await self.look(socket)

    async def _keep_house(self) -> None:
        now = monotonic()
        for socket in [each for each in self.sockets if each.stalled is not None and now - each.stalled > STALLED]:
            await self._dismiss(socket, NOT_READING)
        due = sorted((each for each in self.sockets if now - each.checked > RECHECK), key=lambda each: each.checked)
        for socket in due[: 1 + len(self.sockets) // SPREAD]:
            await self.look(socket)

    async def look(self, socket: Socket, *more: str) -> Mapping[str, int] | None:
        """See again whether somebody is signed in, and which of their topics (and of `more`) they may hear of."""
        asked = socket.asked
        access = await self.ask(look, socket.session_key, asked.union(more))
        if access is None:
            await self._dismiss(socket, NOT_SIGNED_IN)
            return None
        socket.access, socket.checked = access, monotonic()
        lost = asked - access.topics.keys()
        socket.drop(lost)
        await socket.send(*(refusal(topic) for topic in sorted(lost)))
        return access.topics

    async def _dismiss(self, socket: Socket, code: int) -> None:
        self.sockets.discard(socket)
        await socket.close(code)


def _places(due: list[Socket]) -> dict[Place, int]:
    """Where they stand, and how many points each may read on: sockets that are behind share a frame evenly."""
    places: dict[Place, int] = {}
    for socket in due:
        most = max(MAX_POINTS // max(socket.behind, 1), FEWEST_POINTS)
        for place in socket.places.values():
            if place in places or len(places) < MAX_PLACES:
                places[place] = min(places.get(place, MAX_POINTS), most)
    return places


def _stop(bell: Doorbell, reader: ThreadPoolExecutor) -> None:
    bell.stop()
    reader.submit(lambda: connection.close())  # of that thread, so it is looked up there
    reader.shutdown()
