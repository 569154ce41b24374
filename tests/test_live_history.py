"""History of points over HTTP: every spike, where the stream goes on, and only for those who may see it."""

from __future__ import annotations

import asyncio
import gzip
import math

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research.live.frames import HISTORY, Line, frame, history_block
from research.models import Membership, Series
from research.models.series import bucket
from runners.points import Stretch
from tests.bench.ingest import leased_trials
from tests.live_play import history, store
from tests.point_play import value

pytestmark = pytest.mark.django_db


@pytest.fixture
def vera():
    user = User.objects.create_user("vera")
    Membership.objects.create(user=user)
    return user


@pytest.fixture
def client(vera):
    client = Client(headers={"accept-encoding": "gzip"})
    client.force_login(vera)
    return client


@pytest.fixture
def lease():
    return leased_trials(1)[0]


def ask(client, *leases, **more):
    return client.get("/series/", {"trial": [lease.trial.public_id for lease in leases], **more})


def read(response):
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == "application/octet-stream"
    return history(gzip.decompress(response.content))


def topic_of(lease):
    return f"trial:{lease.trial.public_id}"


def append(lease, steps, values, metric="loss"):
    steps, values = np.array(steps, "<i8"), np.array(values, "<f8")
    assert Series.objects.append([Stretch(lease.trial_id, 1, metric, 0, steps.tobytes(), values.tobytes())]) == [
        "stored"
    ]


def packed(steps, values, n):
    """What a browser reads of these points."""
    steps, values = np.array(steps, "<i8"), np.array(values, "<f8")
    line = Line("loss", len(steps), len(steps), bucket(steps, values, n))
    return history(frame(HISTORY, [history_block("trial:x", 1, [line])]))["trial:x", "loss"]


def test_buckets_of_many_trials_and_metrics_come_in_one_answer(client):
    leases = leased_trials(3)
    for number, lease in enumerate(leases):
        store(lease, 0, 3_000 + number, "loss", "lr")
    found = read(ask(client, *leases, n=100))
    assert found.keys() == {(topic_of(lease), metric) for lease in leases for metric in ("loss", "lr")}
    for number, lease in enumerate(leases):
        series, count = found[topic_of(lease), "loss"], 3_000 + number
        expected = bucket(np.arange(count), np.array([value(seq) for seq in range(count)]), 100)
        assert (series["count"], series["next_seq"], series["n"], series["generation"]) == (count, count, 100, 1)
        for name in ("first_step", "last_step"):
            assert series[name].tolist() == getattr(expected, name).tolist()
        assert (series["low"] <= expected.low).all()
        assert (series["high"] >= expected.high).all()
        for name, error in (("low", 2 / 8_192), ("high", 2 / 8_192), ("last", 1e-7)):
            assert np.allclose(series[name], getattr(expected, name), rtol=0, atol=error)


def test_metrics_and_a_range_of_steps_are_cut_out_and_the_cursor_stays_that_of_all(client, lease):
    store(lease, 0, 500, "loss", "lr")
    found = read(ask(client, lease, metric="lr", n=1_000, **{"from": 100, "to": 149}))
    assert found.keys() == {(topic_of(lease), "lr")}
    series = found[topic_of(lease), "lr"]
    assert (series["whole"], series["count"], series["next_seq"]) == (True, 50, 500)
    assert series["first_step"].tolist() == series["last_step"].tolist() == list(range(100, 150))
    nothing = read(ask(client, lease, **{"from": 900, "to": 10**40}))[topic_of(lease), "loss"]
    assert (nothing["count"], nothing["n"], nothing["next_seq"]) == (0, 0, 500)


def test_what_is_not_finite_is_marked_and_hides_nothing(client, lease):
    append(lease, range(8), [1.0, math.nan, 5.0, math.inf, math.nan, math.nan, -math.inf, 2.0])
    series = read(ask(client, lease, n=3))[topic_of(lease), "loss"]
    assert series["low"].tolist() == series["high"].tolist() == [1.0, 5.0, 2.0]
    assert series["marked"] == {0: (1, 0, 0), 1: (1, 1, 0), 2: (1, 0, 1)}
    assert np.isnan(series["last"][:2]).all()
    whole = read(ask(client, lease))[topic_of(lease), "loss"]
    assert (whole["whole"], set(whole["marked"])) == (True, {1, 3, 4, 5, 6})


STEPS = st.integers(-(2**53), 2**53) | st.integers(-100, 100)
POINTS = st.lists(st.tuples(STEPS, st.floats(width=64)), min_size=1, max_size=60)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(POINTS, st.integers(1, 80))
def test_whatever_the_points_are_a_browser_reads_the_same_buckets(points, n):
    """Steps exactly; values as they are, or as float32 where that is far finer than the range."""
    steps, values = zip(*sorted(points, key=lambda point: point[0]), strict=True)
    expected, found = bucket(np.array(steps), np.array(values), n), packed(steps, values, n)
    if steps[-1] - steps[0] < 2**53:
        assert found["first_step"].tolist() == expected.first_step.tolist()
        assert found["last_step"].tolist() == expected.last_step.tolist()
    finite = np.array([each for each in values if math.isfinite(each)])
    spread = min(float(finite.max()) - float(finite.min()), 1e300) if finite.size else 0.0
    for name in ("low", "high", "last"):
        mine, true = found[name], getattr(expected, name)
        if found["whole"] and name != "last":
            continue  # the same array, but for NaN where the value is infinite
        near = np.isclose(mine, true, rtol=0, atol=spread / 8_192, equal_nan=True)
        assert ((mine == true) | near).all()
    if not found["whole"]:
        assert not (found["low"] > expected.low).any()
        assert not (found["high"] < expected.high).any()
    assert len(found["marked"]) == sum(expected.nan + expected.positive_inf + expected.negative_inf > 0)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.0, 2.0, 4.0], "f4"),
        ([1e9, 1e9 + 1, 1e9 + 2], "f8"),  # float32 would show one value
        ([1e300, -1e300], "f8"),
        ([1e-300, 1.0], "f8"),
        ([0.0, 0.0], "f4"),
        ([math.nan, math.inf], "f4"),
    ],
)
def test_float32_is_chosen_where_nobody_can_see_it(values, kind):
    found = packed(range(len(values)), values, 10)
    assert found["values"] == kind
    assert np.array_equal(found["last"], np.array(values), equal_nan=True)


def test_a_stream_from_where_history_ends_has_no_gap(client, lease):
    """`next_seq` is how many points were read, not what another row said before."""
    store(lease, 0, 100)
    Series.objects.update(next_seq=90)
    assert read(ask(client, lease))[topic_of(lease), "loss"]["next_seq"] == 100


def test_a_lost_lease_is_not_drawn(client, lease):
    store(lease, 0, 10)
    lease.trial.give_back(lease, "lost")
    newer = lease.trial.lease(lease.machine, "another worker")
    assert read(ask(client, lease)) == {}
    store(newer, 0, 3)
    series = read(ask(client, lease))[topic_of(lease), "loss"]
    assert (series["generation"], series["count"]) == (2, 3)


def test_nothing_is_sent_again_until_there_is_more(client, lease):
    store(lease, 0, 10)
    first = ask(client, lease)
    same = {"If-None-Match": first["ETag"]}
    with CaptureQueriesContext(connection) as queries:
        again = client.get(first.wsgi_request.get_full_path(), headers=same)
    assert (again.status_code, again.content) == (304, b"")
    assert "chunk" not in " ".join(query["sql"] for query in queries)
    assert client.get(first.wsgi_request.get_full_path() + "&n=5", headers=same).status_code == 200
    store(lease, 10, 1)
    assert client.get(first.wsgi_request.get_full_path(), headers=same).status_code == 200
    assert first["Cache-Control"] == "private, no-cache"
    assert {"Accept-Encoding", "Cookie"} <= set(first["Vary"].split(", "))


def test_a_browser_that_takes_no_gzip_gets_none(vera, lease):
    store(lease, 0, 10)
    client = Client()
    client.force_login(vera)
    response = ask(client, lease)
    assert not response.has_header("Content-Encoding")
    assert history(response.content)[topic_of(lease), "loss"]["count"] == 10


# Who and what


def test_unknown_and_foreign_trials_are_not_found(lease):
    outsider = Client()
    outsider.force_login(User.objects.create_user("otto"))
    foreign, unknown = ask(outsider, lease), outsider.get("/series/?trial=nothing")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.content.decode() == f"no trial '{lease.trial.public_id}', or not yours\n"
    assert unknown.content == b"no trial 'nothing', or not yours\n"
    assert Client().get("/series/?trial=nothing").status_code == 302  # to the sign-in page


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "name 1 to 100 trials"),
        ("&".join(f"trial={number}" for number in range(101)), "name 1 to 100 trials"),
        ("trial=a&n=0", "n is 1 to 10000"),
        ("trial=a&n=10001", "n is 1 to 10000"),
        ("trial=a&n=many", "n is not a whole number"),
        ("trial=a&from=1.5", "from is not a whole number"),
        ("trial=a&to=" + "9" * 5_000 + "x", "no trial 'a'"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_in_one_line(client, query, says):
    response = client.get(f"/series/?{query}")
    assert response.status_code in (400, 404)
    assert says in response.content.decode()
    assert response.content.count(b"\n") == 1


@pytest.mark.django_db(transaction=True)
def test_the_numbers_can_be_downloaded(vera, lease):
    async def download():
        client = AsyncClient()
        await client.aforce_login(vera)
        response = await client.get("/series/", {"trial": lease.trial.public_id, "format": "csv", "from": 1})
        assert response["Content-Disposition"] == 'attachment; filename="series.csv"'
        return b"".join([part async for part in response]).decode().splitlines()

    append(lease, [0, 1, 2], [3.0, math.nan, 0.1], "val/loss")
    store(lease, 0, 25_000, "lr")
    lines = asyncio.run(download())
    begin = f"{lease.trial.public_id},baseline,0"
    assert lines[0] == "trial,arm,seed,metric,step,value"
    assert lines[1:25_000] == [f"{begin},lr,{seq},{value(seq)!r}" for seq in range(1, 25_000)]
    assert lines[25_000:] == [f"{begin},val/loss,1,nan", f"{begin},val/loss,2,0.1"]
