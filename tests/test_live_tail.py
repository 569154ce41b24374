"""Reading on from places: as many queries for many streams as for one, bounded frames, and shares of them."""

from __future__ import annotations

from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from research.live import tail
from research.live.tail import MAX_METRICS, UNKNOWN, Place, _shares, read
from research.models import Series
from tests.bench.ingest import leased_trials
from tests.live_play import blocks, points, store
from tests.point_play import value


def place_of(lease, *cursor, generation=1):
    return Place(f"trial:{lease.trial.public_id}", lease.trial_id, generation, cursor)


def queries(places):
    with CaptureQueriesContext(connection) as captured:
        read(dict.fromkeys(places, 1_000), {0})
    return len(captured)


def test_many_streams_cost_as_many_queries_as_one(db):
    leases = leased_trials(6)
    for lease in leases:
        store(lease, 0, 300, "loss", "lr")
    many = [place_of(lease, ("loss", first)) for lease in leases for first in (0, 7, 250)]
    assert queries(many) == queries(many[:1])


def test_a_place_is_read_up_to_what_is_there_and_then_stands_still(db):
    (lease,) = leased_trials(1)
    store(lease, 0, 300, "loss", "lr")
    begin = place_of(lease, ("loss", 290), generation=UNKNOWN)
    step = read({begin: 100}, set()).steps[begin]
    ((header, payload),) = blocks(b"\1\1\1\0\0\0\0\0" + step.block)
    found = {metric: (first, values.tolist()) for metric, first, _, values in points(payload, header)}
    assert found == {
        "loss": (290, [value(seq) for seq in range(290, 300)]),
        "lr": (0, [value(seq) for seq in range(90)]),
    }
    assert (step.then.generation, dict(step.then.cursor), step.more) == (1, {"loss": 300, "lr": 90}, True)
    end = read({step.then: 1_000}, set()).steps[step.then].then
    still = read({end: 1_000}, set()).steps[end]
    assert (still.then, still.block, still.before, still.after, still.more) == (end, b"", "", "", False)


def test_a_deleted_trial_is_refused(db):
    (lease,) = leased_trials(1)
    place = place_of(lease)
    lease.trial.delete()
    step = read({place: 10}, set()).steps[place]
    assert step.then is None
    assert "refused" in step.after


def test_places_that_do_not_fit_a_tick_wait_for_the_next(db, monkeypatch):
    leases = leased_trials(4)
    for lease in leases:
        store(lease, 0, 100)
    places = [place_of(lease) for lease in leases]
    monkeypatch.setattr(tail, "MAX_TICK_POINTS", 200)
    assert list(read(dict.fromkeys(places, 1_000), set()).steps) == places[:2]


def test_pieces_of_a_compact_series_are_those_of_a_growing_one(db):
    (lease,) = leased_trials(1)
    for first in range(0, 1_000, 25):
        store(lease, first, 25)
    series = Series.objects.get()
    wanted = [(series.pk, 0, 1), (series.pk, 119, 121), (series.pk, 999, 2_000), (series.pk, 1_000, 1_001)]
    growing = Series.objects.pieces(wanted)
    lease.release()
    assert series.compact()
    for piece, (steps, values) in Series.objects.pieces(wanted).items():
        assert steps.tolist() == list(range(piece[1], min(piece[2], 1_000))) == growing[piece][0].tolist()
        assert values.tolist() == growing[piece][1].tolist()


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 100_000), max_size=70), st.integers(32, 8_192))
def test_metrics_share_a_frame_and_none_is_left_out(waiting, most):
    shares = _shares(waiting, most)
    assert shares.keys() == {metric for metric, count in waiting.items() if count}
    assert all(1 <= share <= waiting[metric] for metric, share in shares.items())
    assert sum(shares.values()) <= max(most, len(shares))
    assert sum(shares.values()) >= min(most, sum(waiting.values()))


def test_a_trial_with_thousands_of_metrics_is_read_in_turns():
    assert len(_shares({str(number): 1 for number in range(5_000)}, 8_192)) == MAX_METRICS
