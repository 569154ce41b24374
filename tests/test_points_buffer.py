"""The worker's buffer of points: batches, resends, caps, fences; bounded memory."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from research.models.series import Outcome
from runners import points
from runners.points import PointBuffer, PointsError, Tally
from tests.point_play import value

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
