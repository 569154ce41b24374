"""Points from frame to table: each exactly once, whatever is sent twice, cut anew, killed or fenced."""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from django.db import Error, OperationalError, connection, connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research.models.series import BLOCK_POINTS, Chunk, Outcome, Series, bucket
from runners import points
from runners.points import PointBuffer, PointsError, Stretch, Tally, pack_frame, parse_frame
from tests.bench.ingest import leased_trials

EVERYTHING = {"retry": (Error,), "farewell": connections.close_all}


def value(seq):
    """The value of the point with this sequence number, in every test: any slip is seen."""
    return math.sin(seq)


def stretch(lease, first, count, metric="loss"):
    steps = np.arange(first, first + count, dtype="<i8")
    values = np.array([value(seq) for seq in range(first, first + count)], "<f8")
    return Stretch(lease.trial_id, lease.generation, metric, first, steps.tobytes(), values.tobytes())


def assert_holds(lease, count, metric="loss"):
    series = Series.objects.get(trial=lease.trial_id, generation=lease.generation, metric=metric)
    steps, values = series.read()
    assert steps.tolist() == list(range(count))
    assert values.tolist() == [value(seq) for seq in range(count)]
    assert series.next_seq == count


@pytest.fixture
def lease(db):
    return leased_trials(1)[0]


# The frame


def test_a_frame_comes_back_by_metric_in_the_order_sent():
    frame = pack_frame(["loss", "unused", "lr"], [(2, 0, 0.1), (0, 0, 3.0), (2, 5, 0.2), (0, 2, 2.0), (0, 1, 1.0)])
    lines = [(name, steps.tolist(), values.tolist()) for name, steps, values in parse_frame(frame)]
    assert lines == [("loss", [0, 2, 1], [3.0, 2.0, 1.0]), ("lr", [0, 5], [0.1, 0.2])]
    assert parse_frame(pack_frame(["loss"], [])) == parse_frame(pack_frame([], [])) == []


def test_a_frame_written_without_numpy_is_the_same():
    names = json.dumps(["loss", "val/loss"]).encode()
    records = [(0, 7, 1.5), (1, -7, -math.inf)]
    plain = struct.pack("<H", len(names)) + names + b"".join(struct.pack("<Hqd", *record) for record in records)
    assert plain == pack_frame(["loss", "val/loss"], records)


def header(text):
    text = text if isinstance(text, bytes) else text.encode()
    return len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"", "ends inside its names"),
        (b"\x05", "ends inside its names"),
        (b'\xff\xff["loss"]', "ends inside its names"),
        (pack_frame(["loss"], [(0, 0, 0.0)])[:-1], "not a multiple of 18"),
        (pack_frame(["loss"], [(1, 0, 0.0)]), "is of metric 1; the frame names 1"),
        (pack_frame([], [(0, 0, 0.0)]), "is of metric 0; the frame names 0"),
        (pack_frame(["a", "b"], [(0, 0, 0.0), (65_535, 0, 0.0)]), "is of metric 65535"),
        (pack_frame(["loss"], np.zeros(points.MAX_RECORDS + 1, points.RECORD)), "at most 65536"),
        (header(b"\xff\xfe"), "not JSON: UnicodeDecodeError"),
        (header("[" * 60_000), "not JSON: RecursionError"),
        (header("[" + "9" * 5_000 + "]"), "not JSON: ValueError"),
        (header('{"loss": 1}'), "not a list"),
        (header("[1]"), "metric name 1 "),
        (header('["\\ud800"]'), "metric name '\\ud800' "),
        (header('["loss\\n"]'), "metric name 'loss\\n' "),
        (header('["<b>"]'), "metric name '<b>' "),
        (header('[""]'), "metric name '' "),
        (header(json.dumps(["x" * 81])), "is not 1 to 80"),
        (header('["loss", "loss"]'), "named twice"),
        (header(json.dumps([f"m{number}" for number in range(65)])), "at most 64"),
    ],
)
def test_a_malformed_frame_is_refused_in_one_line(frame, says):
    with pytest.raises(PointsError) as refusal:
        parse_frame(frame)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 200


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: header('["a", "b"]') + tail))
def test_no_bytes_do_anything_else_than_parse_or_be_refused(frame):
    try:
        lines = parse_frame(frame)
    except PointsError:
        return
    assert all(len(steps) == len(values) > 0 for _, steps, values in lines)


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


# The buffer


class Memory:
    """A store that remembers; `outcome` is what it answers."""

    def __init__(self, outcome=points.STORED):
        self.outcome, self.batches, self.open = outcome, [], threading.Event()
        self.open.set()

    def __call__(self, batch):
        self.open.wait(10)
        self.batches.append(list(batch))
        return [self.outcome] * len(batch)

    def steps(self):
        packed = b"".join(stretch.steps for batch in self.batches for stretch in batch)
        return np.frombuffer(packed, "<i8").tolist()


def test_the_words_of_the_store_are_those_of_the_table():
    assert tuple(Outcome) == (points.STORED, points.DUPLICATE, points.FENCED, points.GAP)


def test_points_of_many_frames_go_in_one_batch():
    store = Memory()
    with PointBuffer(store, interval=0.2) as buffer:
        for step in range(100):
            buffer.add(1, 1, "loss", [step], [0.5])
            buffer.add(2, 1, "loss", [step], [0.5])
        assert buffer.drain(1) == Tally(stored=100)
    assert len(store.batches) == 1
    assert [(part.trial_id, part.first_seq, part.count) for part in store.batches[0]] == [
        (1, 0, 100),
        (2, 0, 100),
    ]


def test_points_are_sent_after_the_interval_unasked():
    store = Memory()
    with PointBuffer(store, interval=0.01) as buffer:
        buffer.add(1, 1, "loss", [0], [0.5])
        deadline = time.monotonic() + 5
        while not store.batches and time.monotonic() < deadline:
            time.sleep(0.005)
        assert store.batches


def test_a_store_that_fails_gets_the_same_numbers_again():
    store, failures = Memory(), iter([True, True, False])

    def shaky(batch):
        if next(failures, False):
            raise OSError("no route to the database")
        return store(batch)

    with PointBuffer(shaky, interval=0.005) as buffer:
        for step in range(50):
            buffer.add(1, 1, "loss", [step], [value(step)])
            time.sleep(0.001)
        assert buffer.drain(1, timeout=10) == Tally(stored=50)
    assert store.steps() == list(range(50))


def test_a_trial_beyond_its_cap_is_cut_and_told_so():
    store = Memory()
    with PointBuffer(store, cap=100) as buffer:
        buffer.add(1, 1, "loss", range(80), [0.0] * 80)
        buffer.add(1, 1, "lr", range(80), [0.0] * 80)
        buffer.add(1, 1, "lr", range(5), [0.0] * 5)
        assert buffer.drain(1) == Tally(stored=100, dropped=65)


def test_a_trial_has_at_most_64_metrics():
    with PointBuffer(Memory()) as buffer:
        for number in range(70):
            buffer.add(1, 1, f"metric {number}", [0], [0.0])
        assert buffer.drain(1) == Tally(stored=64, dropped=6)


def test_a_fenced_trial_is_dropped_silently_and_stays_fenced():
    store = Memory(points.FENCED)
    with PointBuffer(store, interval=0.005) as buffer:
        buffer.add(1, 1, "loss", [0], [0.0])
        buffer.add(1, 1, "lr", [0], [0.0])
        assert buffer.drain(1) == Tally(fenced=True)
        buffer.add(1, 1, "loss", [1], [0.0])
        store.outcome = points.STORED
        buffer.add(1, 2, "loss", [1], [0.0])  # a newer lease of the same trial
        assert buffer.drain(1) == Tally(stored=1)
    assert len(store.batches) == 2


def test_points_after_drain_are_dropped():
    with PointBuffer(Memory()) as buffer:
        buffer.add(1, 1, "loss", [0], [0.0])
        assert buffer.drain(1) == Tally(stored=1)
        buffer.add(1, 1, "loss", [1], [0.0])
        assert buffer.drain(1) == Tally(stored=1, dropped=1)
        assert buffer.drain(2) == Tally()


def test_memory_is_bounded_and_the_sender_waits():
    store = Memory()
    store.open.clear()
    with PointBuffer(store, max_pending=100) as buffer:
        sent = []

        def send():
            for step in range(0, 1_000, 10):
                buffer.add(1, 1, "loss", range(step, step + 10), [0.0] * 10)
                sent.append(step)

        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(0.2)
        assert len(sent) == 10
        store.open.set()
        sender.join(10)
        buffer.drain(1)
    assert store.steps() == list(range(1_000))


def test_points_lost_by_the_database_fail_the_trial_and_no_other():
    def store(batch):
        return [points.GAP if part.trial_id == 1 else points.STORED for part in batch]

    with PointBuffer(store) as buffer:
        buffer.add(1, 1, "loss", [0], [0.0])
        buffer.add(2, 1, "loss", [0], [0.0])
        with pytest.raises(PointsError, match="trial 1: the database lost points of loss"):
            buffer.drain(1)
        with pytest.raises(PointsError, match="trial 1"):
            buffer.add(1, 1, "loss", [1], [0.0])
        assert buffer.drain(2) == Tally(stored=1)


def test_drain_and_close_say_what_could_not_be_stored():
    def store(batch):
        raise OSError("disk full")

    buffer = PointBuffer(store, interval=0.005)
    buffer.add(1, 1, "loss", [0, 1], [0.0, 0.0])
    with pytest.raises(PointsError, match="2 points of trial 1 not stored after 0.05 s"):
        buffer.drain(1, timeout=0.05)
    with pytest.raises(PointsError, match="2 points were not stored"):
        buffer.close(timeout=0.05)
    with pytest.raises(PointsError, match="stopped"):
        buffer.add(1, 1, "loss", [2], [0.0])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_store_is_not_retried_but_refused_by_everyone():
    def store(batch):
        raise KeyError("a bug")

    buffer = PointBuffer(store, interval=0.005)
    buffer.add(1, 1, "loss", [0], [0.0])
    with pytest.raises(PointsError, match="stopped"):
        buffer.drain(1, timeout=5)
    with pytest.raises(PointsError, match="stopped"):
        buffer.add(2, 1, "loss", [0], [0.0])
    with pytest.raises(PointsError, match="1 points were not stored"):
        buffer.close()


def test_steps_and_values_of_different_lengths_are_refused():
    with PointBuffer(Memory()) as buffer, pytest.raises(PointsError, match="2 steps but 1 values"):
        buffer.add(1, 1, "loss", [0, 1], [0.0])


def test_ended_trials_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(points, "REMEMBERED", 10)
    with PointBuffer(Memory(), interval=0) as buffer:
        for trial in range(50):
            buffer.add(trial, 1, "loss", [0], [0.0])
            buffer.drain(trial)
        assert len(buffer._trials) == 10


# Together


@pytest.mark.django_db(transaction=True)
def test_nan_and_infinity_come_through_to_the_table():
    (lease,) = leased_trials(1)
    sent = [1.0, math.nan, math.inf, -math.inf, -0.0, 5e-324]
    frame = pack_frame(["loss"], [(0, step, each) for step, each in enumerate(sent)])
    with PointBuffer(Series.objects.append, **EVERYTHING) as buffer:
        for metric, steps, values in parse_frame(frame):
            buffer.add(lease.trial_id, lease.generation, metric, steps, values)
        assert buffer.drain(lease.trial_id) == Tally(stored=6)
    _, values = Series.objects.get().read()
    assert values.tobytes() == np.array(sent, "<f8").tobytes()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("seed", range(3))
def test_commits_of_unknown_fate_lose_and_double_nothing(seed):
    """The store fails now before it writes, now after it has committed; senders never stop."""
    leases, chance = leased_trials(3), random.Random(seed)

    def store(batch):
        fate = chance.random()
        if fate < 0.3:
            raise OperationalError("failed before")
        outcomes = Series.objects.append(batch)
        if fate < 0.6:
            raise OperationalError("the answer was lost")
        return outcomes

    def send(lease):
        at, sizes = 0, random.Random(lease.pk)
        while at < 400:
            count = min(sizes.randint(1, 30), 400 - at)
            steps = range(at, at + count)
            for metric in ("loss", "lr"):
                buffer.add(lease.trial_id, lease.generation, metric, steps, [value(step) for step in steps])
            at += count
            time.sleep(0.001)

    with PointBuffer(store, interval=0.002, **EVERYTHING) as buffer:
        senders = [threading.Thread(target=send, args=(lease,)) for lease in leases]
        for sender in senders:
            sender.start()
        for sender, lease in zip(senders, leases, strict=True):
            sender.join()
            assert buffer.drain(lease.trial_id, timeout=30) == Tally(stored=800)
    for lease in leases:
        assert_holds(lease, 400)
        assert_holds(lease, 400, "lr")


@pytest.mark.django_db(transaction=True)
def test_nothing_is_written_once_the_release_has_returned():
    for lease in leased_trials(5):
        begun = threading.Event()

        def write(lease=lease, begun=begun):
            first = 0
            while Series.objects.append([stretch(lease, first, 5)]) == [Outcome.STORED]:
                first += 5
                begun.set()
            connections.close_all()

        writer = threading.Thread(target=write)
        writer.start()
        assert begun.wait(10)
        assert lease.release()
        stored = Series.objects.get(trial=lease.trial_id).next_seq
        writer.join(10)
        assert_holds(lease, stored)


@pytest.mark.django_db(transaction=True)
def test_a_lost_connection_is_replaced():
    (lease,) = leased_trials(1)
    losses = iter([True, False, True])

    def store(batch):
        connection.ensure_connection()
        if next(losses, False):
            connection.connection.close()
        return Series.objects.append(batch)

    with PointBuffer(store, interval=0.002, **EVERYTHING) as buffer:
        for seq in range(50):
            buffer.add(lease.trial_id, lease.generation, "loss", [seq], [value(seq)])
            time.sleep(0.001)
        assert buffer.drain(lease.trial_id, timeout=10) == Tally(stored=50)
    assert_holds(lease, 50)


WRITER = """
import itertools, math, random, sys
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
import django
django.setup()
from django.db import Error
from research.models.series import Series
from runners.points import PointBuffer, pack_frame, parse_frame
trial, generation, sizes = int(sys.argv[2]), int(sys.argv[3]), random.Random(int(sys.argv[4]))
buffer = PointBuffer(Series.objects.append, interval=0.002, retry=(Error,))
at = 0
print("ready", flush=True)
while at < 900_000:
    count = sizes.randint(1, 40)
    frame = pack_frame(["loss"], [(0, seq, math.sin(seq)) for seq in range(at, at + count)])
    for metric, steps, values in parse_frame(frame):
        buffer.add(trial, generation, metric, steps, values)
    at += count
"""


@pytest.mark.django_db(transaction=True)
def test_a_writer_killed_in_mid_stream_leaves_no_gap_and_no_duplicate():
    (lease,) = leased_trials(1)
    reached = 0
    for seed in range(3):  # each begins again at sequence number 0, with other borders
        database = str(connection.settings_dict["NAME"])
        arguments = [database, str(lease.trial_id), str(lease.generation), str(seed)]
        command = [sys.executable, "-c", WRITER, *arguments]
        root = Path(__file__).parents[1]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as writer:
            try:
                assert writer.stdout.readline() == b"ready\n"
                wait_for_points(reached + 2_000)
            finally:
                writer.kill()
        reached = Series.objects.get().next_seq
        assert_holds(lease, reached)
    end = reached + 500
    with PointBuffer(Series.objects.append, **EVERYTHING) as buffer:
        buffer.add(lease.trial_id, lease.generation, "loss", range(end), [value(seq) for seq in range(end)])
        assert buffer.drain(lease.trial_id) == Tally(stored=end)
    assert_holds(lease, end)


def wait_for_points(count):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        series = Series.objects.first()
        if series is not None and series.next_seq > count:
            return
        time.sleep(0.01)
    pytest.fail(f"the writer did not reach {count} points")
