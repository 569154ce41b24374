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
from django.db import OperationalError, connection, connections
from hypothesis import given
from hypothesis import strategies as st

from research.models.series import Outcome, Series
from runners import points
from runners.points import PointBuffer, PointsError, Tally, pack_frame, parse_frame
from tests.bench.ingest import leased_trials
from tests.point_play import EVERYTHING, assert_holds, stretch, value


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
