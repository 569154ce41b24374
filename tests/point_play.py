"""What the tests of points share: a value for every sequence number, and stretches of them."""

from __future__ import annotations

import math

import numpy as np
from django.db import Error, connections

from research.models.series import Series
from runners.points import Stretch

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
