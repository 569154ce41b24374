"""Points in the table: each exactly once, compacted without loss, and buckets that keep every spike."""

from __future__ import annotations

import math

import numpy as np
import pytest
from django.db import Error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research.models.series import BLOCK_POINTS, Chunk, Outcome, Series, bucket
from runners.points import Stretch
from tests.bench.ingest import leased_trials
from tests.point_play import assert_holds, stretch


@pytest.fixture
def lease(db):
    return leased_trials(1)[0]


# The table


def test_a_batch_of_many_trials_is_stored_and_a_second_time_changes_nothing(db):
    leases = leased_trials(3)
    batch = [stretch(lease, 0, 5, metric) for lease in leases for metric in ("loss", "lr")]
    assert Series.objects.append(batch) == [Outcome.STORED] * 6
    assert Series.objects.append(batch) == [Outcome.DUPLICATE] * 6
    assert Series.objects.append(batch + [stretch(leases[0], 5, 2)]) == [Outcome.DUPLICATE] * 6 + [Outcome.STORED]
    assert_holds(leases[0], 7)
    assert_holds(leases[2], 5, "lr")


def test_a_resend_with_other_borders_appends_only_what_is_new(lease):
    assert Series.objects.append([stretch(lease, 0, 10)]) == [Outcome.STORED]
    assert Series.objects.append([stretch(lease, 4, 2), stretch(lease, 3, 20)]) == ["duplicate", "stored"]
    assert Series.objects.append([stretch(lease, 0, 30), stretch(lease, 20, 15)]) == ["stored", "stored"]
    assert_holds(lease, 35)


def test_a_stretch_that_leaves_a_gap_is_not_written(lease):
    assert Series.objects.append([stretch(lease, 0, 3), stretch(lease, 4, 3)]) == ["stored", "gap"]
    assert_holds(lease, 3)


def test_a_lost_lease_writes_nothing_more(lease):
    Series.objects.append([stretch(lease, 0, 3)])
    assert lease.trial.give_back(lease, "lost")
    newer = lease.trial.lease(lease.machine, "another worker")
    late = [
        stretch(lease, 3, 3),
        stretch(lease, 0, 3),
        stretch(lease, 0, 3, "never seen"),
        stretch(newer, 0, 2),
    ]
    assert Series.objects.append(late) == ["fenced", "fenced", "fenced", "stored"]
    assert_holds(lease, 3)
    assert_holds(newer, 2)
    assert Series.objects.count() == 2
    assert [series.generation for series in Series.objects.newest()] == [2]


def test_nothing_of_a_batch_is_stored_when_another_writer_got_between(lease, monkeypatch):
    """Cannot happen while a lease has one writer; if it does, the batch fails and is sent again."""
    Series.objects.append([stretch(lease, 0, 3)])
    stale = Series.objects.get()
    Series.objects.append([stretch(lease, 3, 3)])
    known = {(lease.trial_id, lease.generation, "loss"): (stale.pk, stale.next_seq)}
    monkeypatch.setattr("research.models.series._series_of", lambda *_: known)
    with pytest.raises(Error):
        Series.objects.append([stretch(lease, 3, 9)])
    assert_holds(lease, 6)


SEQ = st.integers(0, 40) | st.integers(0, 500)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sends=st.lists(st.lists(st.tuples(SEQ, st.integers(1, 300)), max_size=4), max_size=12))
def test_any_sequence_of_resends_is_stored_exactly_once(lease, sends):
    Series.objects.all().delete()
    stored = 0
    for batch in sends:
        expected = []
        for first, count in batch:
            if first > stored:
                expected.append(Outcome.GAP)
            elif first + count <= stored:
                expected.append(Outcome.DUPLICATE)
            else:
                expected.append(Outcome.STORED)
                stored = first + count
        assert Series.objects.append([stretch(lease, first, count) for first, count in batch]) == expected
    if Series.objects.exists():
        assert_holds(lease, stored)


def test_reading_begins_at_any_sequence_number(lease):
    for first in range(0, 30, 5):
        Series.objects.append([stretch(lease, first, 5)])
    series = Series.objects.get()
    for first in (0, 1, 5, 14, 29, 30, 99):
        assert series.read(first)[0].tolist() == list(range(first, 30))
    assert len(Series.objects.create(trial=lease.trial, generation=1, metric="none").read()[1]) == 0


def test_a_malformed_stretch_is_an_error_of_the_caller(lease):
    with pytest.raises(ValueError, match="loss"):
        Series.objects.append([Stretch(lease.trial_id, lease.generation, "loss", 0, b"12345678", b"")])


def test_compaction_keeps_every_point_and_waits_for_the_lease(lease, monkeypatch):
    monkeypatch.setattr("research.models.series.COMPACT_POINTS", 100)
    for first in range(0, 250, 10):
        Series.objects.append([stretch(lease, first, 10)])
    series = Series.objects.get()
    assert not series.compact()
    assert not Series.objects.compactable().exists()
    lease.release()
    assert Series.objects.compactable().get() == series
    assert series.compact()
    assert [chunk.count for chunk in Chunk.objects.order_by("first_seq")] == [100, 100, 50]
    assert not series.compact()
    assert not Series.objects.compactable().exists()
    assert_holds(lease, 250)
    assert series.read(199)[0].tolist() == list(range(199, 250))


def test_compaction_refuses_to_delete_what_it_cannot_replace(lease):
    Series.objects.append([stretch(lease, 0, BLOCK_POINTS)])
    Series.objects.append([stretch(lease, BLOCK_POINTS, 5)])
    Chunk.objects.get(first_seq=0).delete()
    lease.release()
    with pytest.raises(RuntimeError, match=f"5 points where next_seq is {BLOCK_POINTS + 5}"):
        Series.objects.get().compact()
    assert Chunk.objects.count() == 1


def test_small_stretches_gather_in_one_row_and_large_ones_stay_whole(lease):
    first = 0
    for count in (1, 50, 1, 100, 7, 1_000, 300, 3):
        Series.objects.append([stretch(lease, first, count)])
        first += count
    chunks = Chunk.objects.order_by("first_seq").values_list("first_seq", "count")
    assert list(chunks) == [(0, 120), (120, 120), (240, 840), (1_080, 120), (1_200, 240), (1_440, 22)]
    assert_holds(lease, first)


# Buckets


def test_the_buckets_of_many_series_are_those_of_each(db):
    leases = leased_trials(2)
    batch = [stretch(lease, 0, 300, metric) for lease in leases for metric in ("loss", "lr")]
    Series.objects.append(batch)
    Series.objects.create(trial=leases[0].trial, generation=1, metric="empty")
    many = Series.objects.all().buckets(7, start=10, end=250)
    assert len(many) == 4
    for series in Series.objects.exclude(metric="empty"):
        alone = series.buckets(7, start=10, end=250)
        for name in alone.__dataclass_fields__:
            assert getattr(many[series.pk], name).tolist() == getattr(alone, name).tolist()


def test_buckets_keep_every_spike_and_the_last_value():
    steps, values = np.arange(20_003), np.zeros(20_003)
    values[12_345], values[777], values[-1] = 9.0, -9.0, 4.0
    buckets = bucket(steps, values, 1_000)
    assert len(buckets.low) == 1_000
    assert buckets.count.sum() == 20_003
    assert (buckets.high.max(), buckets.low.min(), buckets.last[-1]) == (9.0, -9.0, 4.0)
    spike = int(buckets.high.argmax())
    assert buckets.first_step[spike] <= 12_345 <= buckets.last_step[spike]


def test_nan_and_infinity_are_counted_and_hide_nothing():
    values = np.array([1.0, np.nan, 5.0, np.inf, np.nan, np.nan, -np.inf, 2.0])
    buckets = bucket(np.arange(8), values, 3)  # [0, 1], [2, 3, 4], [5, 6, 7]
    assert buckets.low.tolist() == [1.0, 5.0, 2.0]
    assert buckets.high.tolist() == [1.0, 5.0, 2.0]
    assert buckets.nan.tolist() == [1, 1, 1]
    assert buckets.positive_inf.tolist() == [0, 1, 0]
    assert buckets.negative_inf.tolist() == [0, 0, 1]
    assert math.isnan(bucket(np.arange(2), np.array([np.nan, np.inf]), 1).low[0])


@given(
    st.lists(st.floats(width=64), max_size=70),
    st.integers(0, 40),
)
def test_buckets_agree_with_a_plain_loop(values, n):
    buckets = bucket(np.arange(len(values)), np.array(values, "<f8"), n)
    assert len(buckets.low) == min(n, len(values))
    for number in range(len(buckets.low)):
        mine = values[buckets.first_step[number] : buckets.last_step[number] + 1]
        finite = [each for each in mine if math.isfinite(each)]
        assert len(mine) == buckets.count[number] >= 1
        assert [buckets.low[number], buckets.high[number]] == [min(finite), max(finite)] if finite else True
        assert buckets.nan[number] == sum(map(math.isnan, mine))
    assert buckets.count.sum() == (len(values) if n else 0)


def test_buckets_of_a_range_of_steps_sent_out_of_order(lease):
    steps = np.array([5, 1, 3, 2, 4, 0], "<i8")
    stored = Stretch(lease.trial_id, lease.generation, "loss", 0, steps.tobytes(), (steps * 10.0).tobytes())
    Series.objects.append([stored])
    buckets = Series.objects.get().buckets(2, start=1, end=4)
    assert buckets.first_step.tolist() == [1, 3]
    assert buckets.last_step.tolist() == [2, 4]
    assert buckets.high.tolist() == [20.0, 40.0]
    assert len(Series.objects.get().buckets(10, start=50).low) == 0
