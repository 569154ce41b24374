"""Series and Chunk: the points of trials, stored packed, each exactly once.

A series is one metric of one trial under one generation of its lease. Its points have sequence numbers from
0; `next_seq` is the first one not stored yet, and what makes every resend harmless. Buckets for charts live
here too; what a chart looks like does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol

from django.db import Error, OperationalError, connection, models, transaction
from django.db.models import Exists, F, OuterRef, Subquery
from django.db.models.functions import Coalesce

from research.models.machine import Lease
from research.models.trial import Trial

if TYPE_CHECKING:  # numpy is imported where arrays are made: the web process loads this module at start
    import numpy as np
    from numpy.typing import NDArray

    Points = tuple[NDArray[np.int64], NDArray[np.float64]]  # steps and values

POINT_BYTES = 8  # of a step and of a value
# The last chunk of a series grows up to this. 40 live lines of 20k points that came five at a time are read in a
# tenth of the time. Two such rows fit a page of SQLite, and PostgreSQL does not move them out of the table (2 kB).
BLOCK_POINTS = 120
COMPACT_POINTS = 65_536

Key = tuple[int, int, str]  # trial, generation, metric
Piece = tuple[int, int, int]  # series, first_seq, end_seq
# series, first_seq, count, steps, values, and how many points a chunk that begins there already holds
Row = tuple[int, int, int, bytes, bytes, int]


class Stretch(Protocol):
    """What a writer sends: consecutive points of one series from `first_seq` (see Chunk for the packing)."""

    @property
    def trial_id(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def first_seq(self) -> int: ...
    @property
    def steps(self) -> bytes: ...
    @property
    def values(self) -> bytes: ...


class Outcome(StrEnum):
    STORED = "stored"  # all that was not there yet was written
    DUPLICATE = "duplicate"  # every point was there already
    FENCED = "fenced"  # the lease is no longer open: nothing was written
    GAP = "gap"  # it begins after next_seq, so the database has lost points: nothing was written


@dataclass(frozen=True, slots=True)
class Buckets:
    """A series in n stretches of equally many points, each array of length n, ordered by step.

    `low` and `high` are over the finite values (NaN where a bucket has none), so one NaN hides no spike;
    `last` is the value as it came. What is not finite is counted, to be drawn as marks.
    """

    first_step: NDArray[np.int64]
    last_step: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    last: NDArray[np.float64]
    count: NDArray[np.int64]
    nan: NDArray[np.int64]
    positive_inf: NDArray[np.int64]
    negative_inf: NDArray[np.int64]


class SeriesQuerySet(models.QuerySet["Series"]):
    def newest(self) -> SeriesQuerySet:
        """Of each trial the series of its newest lease; those of lost leases are kept but not drawn."""
        return self.filter(generation=F("trial__generation"))

    def compactable(self) -> SeriesQuerySet:
        """Series whose lease has closed and whose chunks are still as they came."""
        mine = Lease.objects.open().filter(trial=OuterRef("trial"), generation=OuterRef("generation"))
        return self.filter(~Exists(mine), is_compact=False)

    def points(self) -> Iterator[tuple[int, Points]]:
        """All points of each of these series, by pk, in one query; series without points are left out."""
        rows = Chunk.objects.filter(series__in=self).order_by("series", "first_seq")
        chunks = rows.values_list("steps", "values", "series_id").iterator()
        return ((series, _unpack(mine)) for series, mine in groupby(chunks, key=itemgetter(2)))

    def pieces(self, wanted: Collection[Piece]) -> dict[Piece, Points]:
        """The points of each (pk, first_seq, end_seq), end excluded, in one query for all of them."""
        if not wanted:
            return {}
        quote = connection.ops.quote_name
        steps, values, table = quote("steps"), quote("values"), quote(Chunk._meta.db_table)
        statement = (
            f"WITH wanted (series_id, first, stop) AS (VALUES {', '.join(['(%s, %s, %s)'] * len(wanted))})"
            f" SELECT wanted.series_id, first, stop, chunk.first_seq, chunk.{steps}, chunk.{values}"
            f" FROM wanted JOIN {table} chunk ON chunk.series_id = wanted.series_id AND chunk.first_seq < stop"
            f" AND chunk.first_seq >= COALESCE((SELECT max(floor.first_seq) FROM {table} floor"
            " WHERE floor.series_id = wanted.series_id AND floor.first_seq <= wanted.first), 0)"
        )
        found: dict[Piece, list[tuple[int, bytes, bytes]]] = {piece: [] for piece in wanted}
        with connection.cursor() as cursor:
            cursor.execute(statement, [number for piece in wanted for number in piece])
            for series, first, stop, at, some_steps, some_values in cursor:
                found[series, first, stop].append((at, some_steps, some_values))
        return {piece: _cut(piece, sorted(rows)) for piece, rows in found.items()}

    def buckets(self, n: int, start: int | None = None, end: int | None = None) -> dict[int, Buckets]:
        """`Series.buckets` of each of these series, by pk, in one query; series without points are left out."""
        return {series: bucket(*between(*points, start, end), n) for series, points in self.points()}

    def append(self, stretches: Sequence[Stretch]) -> list[Outcome]:
        """Store stretches of many series of many trials in one transaction; one outcome each, in order.

        After a `django.db.Error` everything or nothing was stored: send again from the same `first_seq`, with
        whatever borders. The connection is closed then, so that the next call begins with a new one.
        """
        for stretch in stretches:
            if len(stretch.steps) != len(stretch.values) or len(stretch.steps) % POINT_BYTES:
                raise ValueError(f"stretch of {stretch.metric}: steps and values differ in length")
        try:
            with transaction.atomic():
                return _append(stretches)
        except Error:
            if not connection.in_atomic_block:
                connection.close()
            raise


def _append(stretches: Sequence[Stretch]) -> list[Outcome]:
    trials = {stretch.trial_id for stretch in stretches}
    # The lock makes a release wait until this commits. (SQLite has none: IMMEDIATE transactions take turns.)
    leases = Lease.objects.open().filter(trial__in=trials).order_by("pk").select_for_update(no_key=True)
    leased = set(leases.values_list("trial_id", "generation"))
    known = _series_of(trials, {_key(stretch) for stretch in stretches if _key(stretch)[:2] in leased})
    next_seq = dict(known.values())
    outcomes: list[Outcome] = []
    rows: list[Row] = []
    for stretch in stretches:
        if _key(stretch)[:2] not in leased:
            outcomes.append(Outcome.FENCED)
            continue
        series, _ = known[_key(stretch)]
        here = next_seq[series] - stretch.first_seq  # how many of these points are in the table
        if here < 0:
            outcomes.append(Outcome.GAP)
        elif here * POINT_BYTES >= len(stretch.steps):
            outcomes.append(Outcome.DUPLICATE)
        else:
            cut = here * POINT_BYTES
            rows += _rows(series, next_seq[series], stretch.steps[cut:], stretch.values[cut:])
            next_seq[series] = stretch.first_seq + len(stretch.steps) // POINT_BYTES
            outcomes.append(Outcome.STORED)
    _write(rows)
    _move([(next_seq[series], series, old) for series, old in known.values() if next_seq[series] != old])
    return outcomes


def _key(stretch: Stretch) -> Key:
    return stretch.trial_id, stretch.generation, stretch.metric


def _series_of(trials: set[int], needed: set[Key]) -> dict[Key, tuple[int, int]]:
    """(pk, next_seq) of each series of the trials; those needed are made where missing."""
    rows = Series.objects.filter(trial__in=trials)
    columns = rows.values_list("trial_id", "generation", "metric", "pk", "next_seq")
    known = {(trial, generation, metric): (pk, seq) for trial, generation, metric, pk, seq in columns}
    made = Series.objects.bulk_create(
        Series(trial_id=trial, generation=generation, metric=metric)
        for trial, generation, metric in sorted(needed - known.keys())
    )
    return known | {(series.trial_id, series.generation, series.metric): (series.pk, 0) for series in made}


def _rows(series: int, first: int, steps: bytes, values: bytes) -> list[Row]:
    """Rows for new points: the last chunk is filled up, whole blocks are one chunk, the rest begins a new last one."""
    end = first + len(steps) // POINT_BYTES
    filled = min(first + -first % BLOCK_POINTS, end)
    whole = max(end - end % BLOCK_POINTS, filled)
    rows: list[Row] = []
    for start, stop in pairwise((first, filled, whole, end)):
        if start < stop:
            part = slice((start - first) * POINT_BYTES, (stop - first) * POINT_BYTES)
            before = start % BLOCK_POINTS
            rows.append((series, start - before, stop - start, steps[part], values[part], before))
    return rows


def _write(rows: Sequence[Row]) -> None:
    """Insert chunks, or add to the one that begins there if it holds as many points as expected.

    `executemany`: 40 rows took 0.33 ms of CPU, 1.2 ms by bulk_create.
    """
    if not rows:
        return
    quote = connection.ops.quote_name
    table = quote(Chunk._meta.db_table)
    # SQLite's || makes text of two blobs; the bytes are the same.
    join = "CAST({0} || {1} AS BLOB)" if connection.vendor == "sqlite" else "{0} || {1}"
    joined = ", ".join(
        f"{column} = " + join.format(f"{table}.{column}", f"excluded.{column}")
        for column in (quote("steps"), quote("values"))
    )
    columns = ", ".join(quote(name) for name in ("series_id", "first_seq", "count", "steps", "values"))
    count = f"{table}.{quote('count')}"
    statement = (
        f"INSERT INTO {table} ({columns}) VALUES (%s, %s, %s, %s, %s)"
        f" ON CONFLICT ({quote('series_id')}, {quote('first_seq')})"
        f" DO UPDATE SET {quote('count')} = {count} + excluded.{quote('count')}, {joined} WHERE {count} = %s"
    )
    _execute(statement, rows)


def _move(moves: Sequence[tuple[int, int, int]]) -> None:
    """Move next_seq of each (new, pk, old), where it still is what was read."""
    table = connection.ops.quote_name(Series._meta.db_table)
    if moves:
        _execute(f"UPDATE {table} SET next_seq = %s WHERE id = %s AND next_seq = %s", moves)


def _execute(statement: str, rows: Sequence[Sequence[int | bytes]]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(statement, rows)
        if cursor.rowcount != len(rows):
            raise OperationalError("another writer changed a series at the same time; send again")


class Series(models.Model):
    """One metric of one trial under one generation of its lease."""

    # No index of its own: the unique constraint begins with the trial. The same holds for Chunk.series.
    trial = models.ForeignKey(Trial, models.CASCADE, related_name="series", db_index=False)
    generation = models.PositiveIntegerField()
    metric = models.CharField(max_length=80)
    next_seq = models.BigIntegerField(default=0, help_text="sequence number of the first point not stored yet")
    is_compact = models.BooleanField(default=False)

    objects = SeriesQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["trial", "generation", "metric"], name="one_series")]
        verbose_name_plural = "series"

    def __str__(self) -> str:
        return f"{self.metric} of trial {self.trial_id} (lease {self.generation})"

    def read(self, first_seq: int = 0) -> Points:
        """Steps and values from sequence number `first_seq` on, as they came; read-only arrays."""
        rows = self.chunks.order_by("first_seq").values_list("steps", "values", "first_seq")
        if not first_seq:
            return _unpack(rows)
        floor = self.chunks.filter(first_seq__lte=first_seq).order_by("-first_seq").values("first_seq")[:1]
        found = list(rows.filter(first_seq__gte=Coalesce(Subquery(floor), 0)))
        steps, values = _unpack(found)
        skip = max(first_seq - found[0][2], 0) if found else 0
        return steps[skip:], values[skip:]

    def buckets(self, n: int, start: int | None = None, end: int | None = None) -> Buckets:
        """At most `n` buckets of the points with start <= step <= end."""
        return bucket(*between(*self.read(), start, end), n)

    def compact(self) -> bool:
        """Pack the chunks into few large ones, once the lease has closed. True for the call that did it."""
        with transaction.atomic():
            series = Series.objects.select_for_update(no_key=True).get(pk=self.pk)
            lease = Lease.objects.open().filter(trial=series.trial_id, generation=series.generation)
            if series.is_compact or lease.exists():
                return False
            rows = list(series.chunks.order_by("first_seq").values_list("count", "steps", "values"))
            steps = b"".join(row[1] for row in rows)
            values = b"".join(row[2] for row in rows)
            if not len(steps) == len(values) == series.next_seq * POINT_BYTES:
                raise RuntimeError(f"{series}: {len(steps) // POINT_BYTES} points where next_seq is {series.next_seq}")
            series.chunks.all().delete()
            _write(_large(series.pk, steps, values))
            series.is_compact = True
            series.save(update_fields=["is_compact"])
        return True


def _large(series: int, steps: bytes, values: bytes) -> list[Row]:
    size = COMPACT_POINTS * POINT_BYTES
    return [
        (series, at // POINT_BYTES, len(part) // POINT_BYTES, part, values[at : at + size], 0)
        for at in range(0, len(steps), size)
        if (part := steps[at : at + size])
    ]


class Chunk(models.Model):
    """Consecutive points of a series, packed: `count` little-endian int64 steps and float64 values.

    The last one grows, so a reader keeps a sequence number (`Series.read`), not the number of a row.
    """

    series = models.ForeignKey(Series, models.CASCADE, related_name="chunks", db_index=False)
    first_seq = models.BigIntegerField()
    count = models.PositiveIntegerField()
    steps = models.BinaryField()
    values = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["series", "first_seq"], name="one_chunk")]

    def __str__(self) -> str:
        return f"{self.count} points of series {self.series_id} from {self.first_seq}"


def _unpack(rows: Iterable[Sequence[Any]]) -> Points:
    """The arrays of chunks given in order, steps and values first in each row."""
    import numpy as np

    rows = list(rows)
    return (
        np.frombuffer(b"".join(row[0] for row in rows), "<i8"),
        np.frombuffer(b"".join(row[1] for row in rows), "<f8"),
    )


def _cut(piece: Piece, rows: Sequence[tuple[int, bytes, bytes]]) -> Points:
    """What lies in the piece, of the chunks (first_seq, steps, values) that cover it."""
    _, first, stop = piece
    steps, values = _unpack(row[1:] for row in rows)
    inside = slice(first - rows[0][0], stop - rows[0][0]) if rows else slice(0)
    return steps[inside], values[inside]


def between(steps: NDArray[np.int64], values: NDArray[np.float64], start: int | None, end: int | None) -> Points:
    """The points with start <= step <= end, ordered by step."""
    import numpy as np

    if np.any(steps[1:] < steps[:-1]):  # the training process may send steps in any order
        order = np.argsort(steps, kind="stable")
        steps, values = steps[order], values[order]
    low = 0 if start is None else int(np.searchsorted(steps, start, "left"))
    high = len(steps) if end is None else int(np.searchsorted(steps, end, "right"))
    return steps[low:high], values[low:high]


def bucket(steps: NDArray[np.int64], values: NDArray[np.float64], n: int) -> Buckets:
    """Points ordered by step, in `n` buckets of equally many points (one a point, where there are fewer)."""
    import numpy as np

    n = max(min(n, len(steps)), 0)
    borders = np.arange(n + 1) * len(steps) // max(n, 1)
    starts, ends = borders[:n], borders[1:]
    finite = np.isfinite(values)
    if finite.all():
        low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        nan = positive = negative = np.zeros(n, np.int64)
    else:
        visible = np.where(finite, values, np.nan)
        low, high = np.fmin.reduceat(visible, starts), np.fmax.reduceat(visible, starts)
        kinds = np.isnan(values), values == np.inf, values == -np.inf
        nan, positive, negative = (np.add.reduceat(kind, starts, dtype=np.int64) for kind in kinds)
    first, last = steps[starts], steps[ends - 1]
    return Buckets(first, last, low, high, values[ends - 1], ends - starts, nan, positive, negative)
