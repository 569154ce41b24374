"""Series and Chunk: the points of trials, stored packed, each exactly once.

A series is one metric of one trial under one generation of its lease. Its points have sequence numbers from
0; `next_seq` is the first one not stored yet, and what makes every resend harmless. Buckets for charts live
here too; what a chart looks like does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from django.db import Error, OperationalError, connection, models, transaction
from django.db.models import Exists, F, OuterRef, Subquery
from django.db.models.functions import Coalesce

from research.models.experiment import Trial
from research.models.machine import Lease

if TYPE_CHECKING:  # numpy is imported where arrays are made: the web process loads this module at start
    import numpy as np
    from numpy.typing import NDArray

POINT_BYTES = 8  # of a step and of a value
COMPACT_POINTS = 65_536


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
    owned = [stretch for stretch in stretches if (stretch.trial_id, stretch.generation) in leased]
    known = _series_of(trials, owned)
    before = {series.pk: series.next_seq for series in known.values()}
    outcomes: list[Outcome] = []
    rows: list[tuple[int, int, int, bytes, bytes]] = []
    for stretch in stretches:
        series = known.get((stretch.trial_id, stretch.generation, stretch.metric))
        if series is None or (stretch.trial_id, stretch.generation) not in leased:
            outcomes.append(Outcome.FENCED)
            continue
        here = series.next_seq - stretch.first_seq  # how many of these points are in the table
        count = len(stretch.steps) // POINT_BYTES - here
        if here < 0:
            outcomes.append(Outcome.GAP)
        elif count <= 0:
            outcomes.append(Outcome.DUPLICATE)
        else:
            cut = here * POINT_BYTES
            rows.append((series.pk, series.next_seq, count, stretch.steps[cut:], stretch.values[cut:]))
            series.next_seq += count
            outcomes.append(Outcome.STORED)
    _insert(rows)
    _move(
        (series.next_seq, series.pk, before[series.pk])
        for series in known.values()
        if series.next_seq != before[series.pk]
    )
    return outcomes


def _series_of(trials: set[int], stretches: Iterable[Stretch]) -> dict[tuple[int, int, str], Series]:
    """The rows of the stretches' series by (trial, generation, metric); made where missing."""
    rows = Series.objects.filter(trial__in=trials).only("trial_id", "generation", "metric", "next_seq")
    known = {(series.trial_id, series.generation, series.metric): series for series in rows}
    missing = {(stretch.trial_id, stretch.generation, stretch.metric) for stretch in stretches} - known.keys()
    made = Series.objects.bulk_create(
        Series(trial_id=trial, generation=generation, metric=metric) for trial, generation, metric in missing
    )
    return known | {(series.trial_id, series.generation, series.metric): series for series in made}


def _insert(rows: list[tuple[int, int, int, bytes, bytes]]) -> None:
    """`executemany`: 40 chunks took 0.4 ms with it, 1.4 ms with bulk_create."""
    if rows:
        names = ("series_id", "first_seq", "count", "steps", "values")
        columns = ", ".join(connection.ops.quote_name(name) for name in names)
        table = connection.ops.quote_name(Chunk._meta.db_table)
        with connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES (%s, %s, %s, %s, %s)", rows)


def _move(moves: Iterable[tuple[int, int, int]]) -> None:
    """Move next_seq of each (new, pk, old) where it still is what was read; all or the transaction fails."""
    moves = list(moves)
    if moves:
        table = connection.ops.quote_name(Series._meta.db_table)
        with connection.cursor() as cursor:
            cursor.executemany(f"UPDATE {table} SET next_seq = %s WHERE id = %s AND next_seq = %s", moves)
            if cursor.rowcount != len(moves):
                raise OperationalError("another writer moved a series at the same time; send again")


class Series(models.Model):
    """One metric of one trial under one generation of its lease."""

    # No index of its own: the unique constraint begins with the trial. The same holds for Chunk.series.
    trial = models.ForeignKey(Trial, models.CASCADE, related_name="series", db_index=False)
    generation = models.PositiveIntegerField()
    metric = models.CharField(max_length=80)
    next_seq = models.BigIntegerField(
        default=0, help_text="sequence number of the first point not stored yet"
    )
    is_compact = models.BooleanField(default=False)

    objects = SeriesQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["trial", "generation", "metric"], name="one_series")]
        verbose_name_plural = "series"

    def __str__(self) -> str:
        return f"{self.metric} of trial {self.trial_id} (lease {self.generation})"

    def read(self, first_seq: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps and values from sequence number `first_seq` on, as they came; read-only arrays."""
        import numpy as np

        floor = self.chunks.filter(first_seq__lte=first_seq).order_by("-first_seq").values("first_seq")[:1]
        rows = list(
            self.chunks.filter(first_seq__gte=Coalesce(Subquery(floor), 0))
            .order_by("first_seq")
            .values_list("first_seq", "steps", "values")
        )
        skip = max(first_seq - rows[0][0], 0) if rows else 0
        steps = np.frombuffer(b"".join(row[1] for row in rows), "<i8")
        values = np.frombuffer(b"".join(row[2] for row in rows), "<f8")
        return steps[skip:], values[skip:]

    def buckets(self, n: int, start: int | None = None, end: int | None = None) -> Buckets:
        """At most `n` buckets of the points with start <= step <= end."""
        import numpy as np

        steps, values = self.read()
        if np.any(steps[1:] < steps[:-1]):  # the training process may send steps in any order
            order = np.argsort(steps, kind="stable")
            steps, values = steps[order], values[order]
        low = 0 if start is None else int(np.searchsorted(steps, start, "left"))
        high = len(steps) if end is None else int(np.searchsorted(steps, end, "right"))
        return bucket(steps[low:high], values[low:high], n)

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
                raise RuntimeError(
                    f"{series}: {len(steps) // POINT_BYTES} points where next_seq is {series.next_seq}"
                )
            series.chunks.all().delete()
            _insert(_pack(series.pk, steps, values))
            series.is_compact = True
            series.save(update_fields=["is_compact"])
        return True


def _pack(series: int, steps: bytes, values: bytes) -> list[tuple[int, int, int, bytes, bytes]]:
    size = COMPACT_POINTS * POINT_BYTES
    return [
        (series, at // POINT_BYTES, len(part) // POINT_BYTES, part, values[at : at + size])
        for at in range(0, len(steps), size)
        if (part := steps[at : at + size])
    ]


class Chunk(models.Model):
    """Consecutive points of a series, packed: `count` little-endian int64 steps and float64 values."""

    series = models.ForeignKey(Series, models.CASCADE, related_name="chunks", db_index=False)
    first_seq = models.BigIntegerField()
    count = models.PositiveIntegerField()
    steps = models.BinaryField()
    values = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["series", "first_seq"], name="one_chunk")]

    def __str__(self) -> str:
        return f"{self.count} points of series {self.series_id} from {self.first_seq}"


def bucket(steps: NDArray[np.int64], values: NDArray[np.float64], n: int) -> Buckets:
    """Points ordered by step, in `n` buckets of equally many points (one a point, where there are fewer)."""
    import numpy as np

    n = min(max(n, 0), len(steps))
    starts = np.arange(n) * len(steps) // max(n, 1)
    ends = np.append(starts[1:], len(steps)) - 1 if n else starts
    finite = np.isfinite(values)
    none = np.zeros(n, np.int64)
    if finite.all():
        low, high = (
            (np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts))
            if n
            else (values, values)
        )
        nan = positive = negative = none
    else:
        low = np.fmin.reduceat(np.where(finite, values, np.nan), starts)
        high = np.fmax.reduceat(np.where(finite, values, np.nan), starts)
        nan, positive, negative = (
            np.add.reduceat(kind.astype(np.int64), starts)
            for kind in (np.isnan(values), values == np.inf, values == -np.inf)
        )
    return Buckets(
        steps[starts], steps[ends], low, high, values[ends], ends - starts + 1, nan, positive, negative
    )
