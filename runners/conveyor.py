"""The order of trials on one device: one is judged while the next one warms up; what is timed is alone on it.

    turn = conveyor.enter(beside=True)   # the feeder; waits until the trial before this one has trained
    turn.begin()                         # in a thread of the trial, just before it touches the device
    turn.start_clock()                   # waits until the trial before this one is judged and gone
    turn.trained()                       # its clock is over and its process ended: the next one may warm up
    turn.over()                          # it is judged and gone; always, however it ended

Pure threading: what a trial is, where it runs and what becomes of it, others know.
"""

from __future__ import annotations

import threading
import time
from enum import IntEnum

SLOTS = 2  # one trial is judged while one warms up; never more, since nothing warms up beside a clock


class Phase(IntEnum):
    WARMING = 0
    TIMED = 1
    JUDGED = 2  # or about to be


class Turn:
    """One trial's way over the device, on a slot of its own. `alone`: nobody warms up while it is judged either."""

    def __init__(self, conveyor: Conveyor, slot: int, alone: bool) -> None:
        self._conveyor, self.slot, self.alone = conveyor, slot, alone
        self.phase = Phase.WARMING
        self.company = False  # for a while it shared the device with another trial
        self.overlapped = 0.0  # seconds since `begin` in which the trial before this one was still on the device
        self.began: float | None = None

    def begin(self) -> bool:
        """Whether another trial is on the device now."""
        with self._conveyor.changed:
            self.began = time.monotonic()
            return len(self._conveyor.turns) > 1

    def start_clock(self) -> None:
        """Wait until nothing of any other trial is on the device."""
        with self._conveyor.changed:
            self._conveyor.changed.wait_for(lambda: self._conveyor.turns[0] is self)
            self.phase = Phase.TIMED

    def trained(self) -> None:
        with self._conveyor.changed:
            self.phase = Phase.JUDGED
            self._conveyor.changed.notify_all()

    def over(self) -> None:
        """May be called again."""
        self._conveyor.remove(self)


class Conveyor:
    """Turns in the order in which they entered. `enter` and the waiting are for one thread, the feeder."""

    def __init__(self, slots: int = SLOTS) -> None:
        self.changed = threading.Condition()
        self.turns: list[Turn] = []
        self._free = list(range(slots))

    def enter(self, *, beside: bool = False, alone: bool = False) -> Turn:
        """A turn, once its trial may warm up: `beside` the judging of the one before, else when that one is gone."""
        with self.changed:
            self.changed.wait_for(lambda: self._has_place(beside and not alone))
            turn = Turn(self, self._free.pop(0), alone)
            for other in self.turns:
                other.company = turn.company = True
            self.turns.append(turn)
            return turn

    def await_place(self) -> int:
        """Wait until nobody warms up or trains. Returns a slot that is free then, and until the feeder enters."""
        with self.changed:
            self.changed.wait_for(lambda: self._has_place(True))
            return self._free[0]

    def await_empty(self) -> None:
        with self.changed:
            self.changed.wait_for(lambda: not self.turns)

    def remove(self, turn: Turn) -> None:
        with self.changed:
            if turn not in self.turns:
                return
            now, at = time.monotonic(), self.turns.index(turn)
            for later in self.turns[at + 1 :] if at == 0 else [turn]:
                if later.began is not None:
                    later.overlapped = now - later.began
            self.turns.remove(turn)
            self._free = sorted([*self._free, turn.slot])
            self.changed.notify_all()

    def _has_place(self, beside: bool) -> bool:
        if not beside or any(turn.alone for turn in self.turns):
            return not self.turns
        return bool(self._free) and all(turn.phase is Phase.JUDGED for turn in self.turns)
