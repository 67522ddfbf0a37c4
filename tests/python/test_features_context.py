from __future__ import annotations

import datetime
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfuse.features import cyclic_time, haversine, nearby, sphere_vectors

RADIUS = 6371.0088
PLACE = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


def angle(a, b):
    """Vincenty's formula on a sphere, in Python floats: exact for near and for opposite points."""
    (p, x), (q, y) = (tuple(map(math.radians, place)) for place in (a, b))
    over = math.hypot(
        math.cos(q) * math.sin(y - x),
        math.cos(p) * math.sin(q) - math.sin(p) * math.cos(q) * math.cos(y - x),
    )
    under = math.sin(p) * math.sin(q) + math.cos(p) * math.cos(q) * math.cos(y - x)
    return math.atan2(over, under)


def random_places(rng, n):
    latitudes = np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    return np.column_stack([latitudes, rng.uniform(-180, 180, n)])


@given(a=PLACE, b=PLACE)
def test_haversine_is_the_great_circle(a, b):
    # Near the antipode the formula loses half the digits: a metre there.
    assert haversine([a], [b])[0, 0] == pytest.approx(RADIUS * angle(a, b), rel=1e-9, abs=2e-3)


def test_known_distances():
    paris, london, pole = [48.8566, 2.3522], [51.5074, -0.1278], [90, 17]
    assert haversine([paris], [london])[0, 0] == pytest.approx(343.6, abs=0.1)
    assert haversine([pole], [[-90, 0]])[0, 0] == pytest.approx(math.pi * RADIUS)
    assert haversine([[0, 179.5]], [[0, -179.5]])[0, 0] == pytest.approx(math.radians(1) * RADIUS)
    assert haversine([paris], [paris])[0, 0] == 0


def test_the_product_of_vectors_is_the_cosine_of_the_angle(rng):
    places = random_places(rng, 60)
    vectors = sphere_vectors(places)
    assert (vectors.shape, vectors.dtype) == ((60, 3), np.float32)
    expected = [[math.cos(angle(a, b)) for b in places] for a in places]
    np.testing.assert_allclose(vectors @ vectors.T, expected, rtol=0, atol=5e-7)


def test_the_product_orders_by_distance(rng):
    import recfuse

    users, items = random_places(rng, 20), random_places(rng, 100)
    ids, _ = recfuse.topk(sphere_vectors(users), sphere_vectors(items), k=10)
    nearest = np.argsort([[angle(u, i) for i in items] for u in users], axis=1)[:, :10]
    np.testing.assert_array_equal(ids, nearest)


@pytest.mark.parametrize("radius", [0, 50, 2000, 30000])
def test_nearby_is_every_item_in_the_radius(rng, radius):
    users, items = random_places(rng, 15), random_places(rng, 80)
    items[:3] = users[:3]  # at distance 0
    users[4], items[7] = np.nan, [np.nan, 3]
    got = nearby(users, items, radius=radius, scale=700).toarray()
    expected = np.zeros((15, 80))
    for u, i in np.ndindex(15, 80):
        if u != 4 and i != 7 and (d := RADIUS * angle(users[u], items[i])) <= radius:
            expected[u, i] = math.exp(-d / 700)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert (got > 0).sum() >= 3


def test_nearby_without_anybody():
    nowhere = np.full((2, 2), np.nan)
    assert nearby(nowhere, [[1, 2]], radius=5).shape == (2, 1)
    assert nearby(np.empty((0, 2)), [[1, 2]], radius=5).nnz == 0
    assert nearby([[1, 2]], [[1, 2]], radius=0).toarray() == 1
    # By default a third of the radius.
    got = nearby([[0, 0]], [[0, 1]], radius=300).toarray()[0, 0]
    assert got == pytest.approx(math.exp(-math.radians(1) * RADIUS / 100), rel=1e-5)


def test_places_not_known_are_zero():
    vectors = sphere_vectors([[np.nan, 3], [0, 0]])
    np.testing.assert_array_equal(vectors, [[0, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize(
    ("places", "error", "message"),
    [
        ([[120, 31]], ValueError, r"latitudes in \[-90, 90\] in the first column; got 120"),
        ([[1, np.inf]], ValueError, "finite, or NaN where not known"),
        ([1, 2], ValueError, r"shape \(n, 2\): latitude, longitude; got \(2,\)"),
        ([["a", "b"]], TypeError, "hold degrees"),
    ],
)
def test_wrong_places(places, error, message):
    for call in (sphere_vectors, lambda x: haversine(x, [[0, 0]])):
        with pytest.raises(error, match=f": places must .*{message}"):
            call(places)
    with pytest.raises(error, match="nearby: items must"):
        nearby([[0, 0]], places, radius=1)


def test_wrong_radius():
    with pytest.raises(ValueError, match="nearby: radius must be at least 0; got -1"):
        nearby([[0, 0]], [[0, 0]], radius=-1)
    with pytest.raises(ValueError, match="nearby: scale must be above 0; got 0"):
        nearby([[0, 0]], [[0, 0]], radius=1, scale=0)


MOMENT = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1))


@given(moments=st.lists(MOMENT, min_size=1, max_size=4))
def test_phases_match_the_calendar(moments):
    expected = []
    for t in moments:
        t = t.replace(microsecond=t.microsecond // 1000 * 1000)
        midnight = datetime.datetime(t.year, t.month, t.day)
        day = (t - midnight).total_seconds() / 86400
        week = (t.weekday() + day) / 7
        start, end = (datetime.datetime(y, 1, 1) for y in (t.year, t.year + 1))
        year = (t - start) / (end - start)
        angles = [2 * math.pi * phase for phase in (day, week, year)]
        circles = [f(angle) for angle in angles for f in (math.cos, math.sin)]
        expected.append([x / math.sqrt(3) for x in circles])
    got = cyclic_time(np.array(moments, "datetime64[ms]"))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-7)
    seconds = [(t - datetime.datetime(1970, 1, 1)).total_seconds() for t in moments]
    np.testing.assert_allclose(cyclic_time(seconds), expected, rtol=0, atol=2e-7)


def test_neighbours_on_the_circle():
    def product(a, b, cycle):
        x, y = cyclic_time([a, b], [cycle])
        return float(x @ y)

    assert product("2026-01-05T23:00", "2026-01-06T01:00", "day") == pytest.approx(math.sqrt(3) / 2)
    assert product("2026-01-05T06:00", "2026-01-06T18:00", "day") == pytest.approx(-1)
    assert product("2026-01-04T23:59", "2026-01-05T00:01", "week") > 0.999  # Sunday, Monday
    assert product("2025-12-31", "2026-01-01", "year") > 0.999
    assert product("2026-01-01", "2026-07-02T12:00", "year") == pytest.approx(-1)


def test_moments_not_known_are_zero():
    times = np.array(["2026-01-01", "NaT"], "datetime64[s]")
    assert cyclic_time(times).any(axis=1).tolist() == [True, False]
    assert cyclic_time([0.0, np.nan]).any(axis=1).tolist() == [True, False]
    assert cyclic_time(np.array([], "datetime64[s]"), ["week"]).shape == (0, 2)
    np.testing.assert_allclose(np.linalg.norm(cyclic_time([12345]), axis=1), 1, rtol=1e-6)


def test_wrong_moments():
    with pytest.raises(ValueError, match=r"cyclic_time: cycles must be of .*; got 'month'"):
        cyclic_time([0], ["month"])
    with pytest.raises(ValueError, match="cycles must name a cycle; got none"):
        cyclic_time([0], [])
    with pytest.raises(ValueError, match=r"times must have shape \(n,\); got \(1, 1\)"):
        cyclic_time([[0]])
    with pytest.raises(ValueError, match="times must be datetimes or seconds; got"):
        cyclic_time(["yesterday"])
    with pytest.raises(ValueError, match=r"times must be within 1e\+12 seconds of 1970"):
        cyclic_time([1.7e12])  # milliseconds
    with pytest.raises(TypeError, match="times must be datetimes or seconds; got dtype bool"):
        cyclic_time([True])
