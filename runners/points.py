"""Points on their way from a training process to the lab: the frame they arrive in, and their buffer.

The frame (what the writer inside the sandbox sends; all numbers little endian):

    offset  bytes  content
    0       2      uint16 N, the length of the names
    2       N      the names: a UTF-8 JSON list, e.g. ["loss", "lr"]; its positions are the metrics' indices
    2 + N   18*n   n records without padding: uint16 metric index, int64 step, float64 value

so `struct.pack("<H", len(names)) + names`, then `struct.pack("<Hqd", index, step, value)` for each record.
Every frame carries the names it needs, so a reader can begin anywhere. Limits: a name has 1 to 80 of
`A-Za-z0-9_./ -` and stands once in the list, a list has at most 64 names, a frame at most 65,536 records. NaN
and infinity are values like others. Where a frame ends is for the transport to say (`parse_frame` gets just
one), and where points are stored for the function given to the buffer, so that no Django is needed here.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

log = logging.getLogger(__name__)

RECORD = np.dtype([("metric", "<u2"), ("step", "<i8"), ("value", "<f8")])
NAME = re.compile(r"[A-Za-z0-9_./ -]{1,80}")
MAX_METRICS = 64
INDICES = np.arange(MAX_METRICS + 1, dtype="<u2")
STEP, VALUE = np.dtype("<i8"), np.dtype("<f8")
MAX_RECORDS = 65_536
MAX_TRIAL_POINTS = 1_000_000
MAX_PENDING = 2_000_000  # points of all trials in memory, 32 MB; then add() waits
MAX_PAUSE = 2.0  # seconds between two attempts of a store that keeps failing
POINT_BYTES = 8  # of a step and of a value
REMEMBERED = 1_000  # trials that have ended or were fenced

Line = tuple[str, NDArray[np.int64], NDArray[np.float64]]


class PointsError(Exception):
    """A frame that cannot be read, or points that cannot be stored; the message is one line."""


def parse_frame(frame: bytes) -> list[Line]:
    """(name, steps, values) of each metric that has records, in the order sent. The bytes are untrusted."""
    end = 2 + int.from_bytes(frame[:2], "little")
    size = len(frame) - end
    if len(frame) < 2 or size < 0:
        raise PointsError(f"frame of {len(frame)} bytes ends inside its names")
    if size % RECORD.itemsize:
        raise PointsError(f"{size} bytes of records are not a multiple of {RECORD.itemsize}")
    if size > MAX_RECORDS * RECORD.itemsize:
        raise PointsError(f"{size // RECORD.itemsize} records in one frame; at most {MAX_RECORDS} are read")
    names = _names(bytes(frame[2:end]))
    if not size:
        return []
    records = np.frombuffer(frame, RECORD, offset=end)
    metric = records["metric"]
    order = metric.argsort(kind="stable")  # radix on uint16, so linear; points of a metric stay in order
    metric, steps, values = metric[order], records["step"][order], records["value"][order]
    if metric[-1] >= len(names):
        raise PointsError(f"a record is of metric {metric[-1]}; the frame names {len(names)}")
    borders = metric.searchsorted(INDICES[: len(names) + 1]).tolist()
    return [
        (name, steps[first:last], values[first:last])
        for name, (first, last) in zip(names, pairwise(borders), strict=True)
        if first < last
    ]


@lru_cache(maxsize=64)  # a trial repeats its list in every frame: 4 of the 12 us of a small one
def _names(header: bytes) -> tuple[str, ...]:
    try:
        names = json.loads(header.decode())
    except (ValueError, RecursionError) as error:
        raise PointsError(f"metric names are not JSON: {type(error).__name__}") from None
    if not isinstance(names, list) or len(names) > MAX_METRICS:
        raise PointsError(f"metric names are not a list of at most {MAX_METRICS}")
    for name in names:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise PointsError(f"metric name {ascii(name)[:100]} is not 1 to 80 of A-Za-z0-9_./ -")
    if len(set(names)) != len(names):
        raise PointsError("a metric is named twice in one frame")
    return tuple(names)


def pack_frame(names: Sequence[str], records: NDArray[np.void] | Iterable[tuple[int, int, float]]) -> bytes:
    """The frame of `records` (metric index, step, value), for tests and the performance table."""
    header = json.dumps(list(names)).encode()
    packed = records if isinstance(records, np.ndarray) else np.array(list(records), RECORD)
    return len(header).to_bytes(2, "little") + header + packed.astype(RECORD, copy=False).tobytes()


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive points of one series from number `first_seq`: little-endian int64 steps, float64 values."""

    trial_id: int
    generation: int
    metric: str
    first_seq: int
    steps: bytes
    values: bytes

    @property
    def count(self) -> int:
        return len(self.steps) // POINT_BYTES


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of a trial's points."""

    stored: int = 0
    dropped: int = 0  # beyond the cap of points or metrics, or after drain()
    fenced: bool = False  # the lease was lost: what was not stored by then never will be


# What a store answers for each stretch; research.models.series.Outcome has the same words.
STORED, DUPLICATE, FENCED, GAP = "stored", "duplicate", "fenced", "gap"
# All of a batch in one transaction. After an exception named in `retry` the batch is sent again from the same
# sequence numbers, perhaps longer; so the store cuts off what it has.
Store = Callable[[Sequence[Stretch]], Sequence[str]]


@dataclass(slots=True)
class _Trial:
    lines: dict[str, _Line] = field(default_factory=dict)
    accepted: int = 0
    stored: int = 0
    pending: int = 0
    dropped: int = 0
    fenced: bool = False
    ended: bool = False
    broken: str = ""

    def admit(self, metric: str, count: int, cap: int) -> int:
        """How many of `count` points are taken; the rest is counted as dropped."""
        if self.fenced:
            return 0
        room = cap - self.accepted
        if self.ended or (metric not in self.lines and len(self.lines) >= MAX_METRICS):
            room = 0
        taken = min(count, room)
        if taken < count and not self.dropped and not self.ended:
            log.warning("a trial sends more than %d points or %d metrics; the rest is dropped", cap, MAX_METRICS)
        self.dropped += count - taken
        self.accepted += taken
        self.pending += taken
        return taken


@dataclass(slots=True, eq=False)
class _Line:
    """Points of one series that are not known to be stored; the first has sequence number `first_seq`."""

    trial: _Trial
    trial_id: int
    generation: int
    metric: str
    first_seq: int = 0
    steps: bytearray = field(default_factory=bytearray)
    values: bytearray = field(default_factory=bytearray)

    def stretch(self) -> Stretch:
        size = MAX_RECORDS * POINT_BYTES
        steps, values = bytes(self.steps[:size]), bytes(self.values[:size])
        return Stretch(self.trial_id, self.generation, self.metric, self.first_seq, steps, values)

    def advance(self, count: int) -> None:
        del self.steps[: count * POINT_BYTES], self.values[: count * POINT_BYTES]
        self.first_seq += count


class PointBuffer:
    """Gathers the points of all trials of this process; one thread stores them every `interval` seconds.

    `store` runs in that thread alone, and so does `farewell` at its end (to close a database connection).
    Points are kept until a store has answered for them; with `max_pending` of them in memory `add` waits.
    """

    def __init__(
        self,
        store: Store,
        interval: float = 0.05,
        *,
        retry: tuple[type[Exception], ...] = (OSError,),
        farewell: Callable[[], None] = lambda: None,
        cap: int = MAX_TRIAL_POINTS,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._store, self._interval, self._retry, self._farewell = store, interval, retry, farewell
        self._cap, self._max_pending = cap, max_pending
        self._trials: dict[tuple[int, int], _Trial] = {}
        self._over: deque[tuple[int, int]] = deque()
        self._dirty: dict[_Line, None] = {}
        self._pending = 0
        self._pause = 0.0
        self._hurry = self._closing = self._abandoned = self._stopped = False
        lock = threading.Lock()
        self._work = threading.Condition(lock)  # the writer waits for points
        self._room = threading.Condition(lock)  # everybody else waits for the writer
        self._thread = threading.Thread(target=self._write, name="points", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def add(self, trial_id: int, generation: int, metric: str, steps: ArrayLike, values: ArrayLike) -> None:
        """Take points of one metric, in order; wait while memory is full. PointsError: not to be stored."""
        packed_steps = np.asarray(steps, STEP).tobytes()
        packed_values = np.asarray(values, VALUE).tobytes()
        if len(packed_steps) != len(packed_values):
            raise PointsError(f"{metric}: {len(packed_steps) // 8} steps but {len(packed_values) // 8} values")
        with self._work:
            trial = self._trials.get((trial_id, generation))
            if trial is None:
                trial = self._trials[trial_id, generation] = _Trial()
            if self._pending >= self._max_pending:
                self._urge()
                self._room.wait_for(lambda: self._pending < self._max_pending or self._refuses(trial))
            self._check(trial)
            count = trial.admit(metric, len(packed_steps) // POINT_BYTES, self._cap)
            if not count:
                return
            line = trial.lines.get(metric)
            if line is None:
                line = trial.lines[metric] = _Line(trial, trial_id, generation, metric)
            line.steps += packed_steps[: count * POINT_BYTES]
            line.values += packed_values[: count * POINT_BYTES]
            self._dirty[line] = None
            self._pending += count
            if self._pending == count:
                self._work.notify()

    def drain(self, trial_id: int, timeout: float | None = None) -> Tally:
        """Wait until a trial's points are all stored (or it is fenced), and end it: later ones are dropped.

        PointsError: not stored after `timeout` seconds (the trial goes on, drain again), or never to be.
        """
        with self._work:
            mine = {key: trial for key, trial in self._trials.items() if key[0] == trial_id}
            if not mine:
                return Tally()
            self._urge()
            settled = self._room.wait_for(
                lambda: self._stopped or not any(trial.pending for trial in mine.values()), timeout
            )
            newest = mine[max(mine)]
            if not newest.fenced and newest.pending and self._stopped or newest.broken:
                raise PointsError(newest.broken or "the writer of points has stopped; see the log")
            if not settled:
                raise PointsError(f"{newest.pending} points of trial {trial_id} not stored after {timeout} s")
            for key, trial in mine.items():
                if not trial.ended:
                    trial.ended = True
                    self._retire(key, trial)
            return Tally(newest.stored, newest.dropped, newest.fenced)

    def close(self, timeout: float | None = 10.0) -> None:
        """Store what is there and stop. PointsError: not all in `timeout` seconds; the rest is given up."""
        with self._work:
            self._closing = True
            self._work.notify()
            self._room.notify_all()
        self._thread.join(timeout)
        with self._work:
            self._abandoned = True
            self._work.notify()
            if self._pending:
                raise PointsError(f"{self._pending} points were not stored before the buffer was closed")

    def _refuses(self, trial: _Trial) -> bool:
        return trial.fenced or bool(trial.broken) or self._stopped or self._closing

    def _check(self, trial: _Trial) -> None:
        if trial.broken:
            raise PointsError(trial.broken)
        if self._stopped or self._closing:
            raise PointsError("the writer of points has stopped")

    def _urge(self) -> None:
        self._hurry = True
        self._work.notify()

    def _write(self) -> None:
        """The thread. An exception outside `retry` ends it, traced; add() and drain() then refuse."""
        try:
            while self._wait():
                self._send()
        finally:
            with self._work:
                self._stopped = True
                self._room.notify_all()
            self._farewell()

    def _wait(self) -> bool:
        """Until there is something to send; False: nothing more will come."""
        with self._work:
            self._work.wait_for(lambda: self._pending or self._closing)
            if self._pause:
                self._work.wait_for(lambda: self._abandoned, self._pause)
            else:
                self._work.wait_for(lambda: self._hurry or self._closing, self._interval)
            self._hurry = False
            return self._pending > 0 and not self._abandoned

    def _send(self) -> None:
        with self._work:
            lines = list(self._dirty)
            batch = [line.stretch() for line in lines]
        try:
            outcomes = self._store(batch)
        except self._retry as error:
            self._pause = min(max(self._interval, 2 * self._pause), MAX_PAUSE)
            log.warning("%d series not stored, again in %.2f s: %s", len(batch), self._pause, error)
            return
        self._pause = 0.0
        with self._work:
            for line, stretch, outcome in zip(lines, batch, outcomes, strict=True):
                self._settle(line, stretch, outcome)
            if self._dirty and any(stretch.count == MAX_RECORDS for stretch in batch):
                self._hurry = True  # it did not fit into one stretch a series
            self._room.notify_all()

    def _settle(self, line: _Line, stretch: Stretch, outcome: str) -> None:
        trial = line.trial
        if trial.fenced or trial.broken:
            return  # by an earlier stretch of this batch
        if outcome in (STORED, DUPLICATE):
            line.advance(stretch.count)
            trial.stored += stretch.count
            trial.pending -= stretch.count
            self._pending -= stretch.count
            if not line.steps:
                del self._dirty[line]
            return
        if outcome == FENCED:
            trial.fenced = True
            log.info("trial %d: lease %d is lost, its points are dropped", line.trial_id, line.generation)
        elif outcome == GAP:
            lost = f"lost points of {line.metric} before number {stretch.first_seq}"
            trial.broken = f"trial {line.trial_id}: the database {lost}"
        else:
            raise ValueError(f"a store answered {outcome!r}")
        self._retire((line.trial_id, line.generation), trial)

    def _retire(self, key: tuple[int, int], trial: _Trial) -> None:
        """Free what a trial holds. The last REMEMBERED stay known, so that late points find it over."""
        for line in trial.lines.values():
            self._dirty.pop(line, None)
        trial.lines = {}
        self._pending -= trial.pending
        trial.pending = 0
        self._over.append(key)
        if len(self._over) > REMEMBERED:
            self._trials.pop(self._over.popleft(), None)
