"""The doorbell: rings when some transaction has committed, in whatever process. It never says which."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import Error, connection

log = logging.getLogger(__name__)

INTERVAL = 0.05  # seconds
MAX_PAUSE = 2.0  # seconds between two attempts on a database that does not answer
# An answer that changes with every commit of another connection, and at no other time (or nearly so). SQLite's costs
# 21 us. On PostgreSQL it is the set of visible transactions: unlike a position in the log, it changes when rows are
# there to be read, not before.
QUESTIONS = {"sqlite": "PRAGMA data_version", "postgresql": "SELECT pg_current_snapshot()::text"}


class Doorbell:
    """Asks the database on a thread and a connection of its own, and calls `ring` in that thread."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="doorbell", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended and its connection is closed."""
        self._stop.set()
        self._thread.join()

    def _listen(self) -> None:
        heard, pause = None, 0.0
        while not self._stop.wait(pause):
            try:
                with connection.cursor() as cursor:
                    cursor.execute(QUESTIONS[connection.vendor])
                    (answer,) = cursor.fetchone()
            except Error as error:
                if heard is not None:
                    log.warning("the doorbell cannot ask the database: %s", error)
                connection.close()
                heard, pause = None, min(max(2 * pause, INTERVAL), MAX_PAUSE)
                continue
            pause = INTERVAL
            if answer != heard:  # also the first one: what was committed before counts as news
                heard = answer
                self._ring()
        connection.close()
