"""Where and when: places on the sphere, and moments on the circles of day, week and year."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_float
from recfuse._named import named

__all__ = ["cyclic_time", "haversine", "nearby", "sphere_vectors"]

EARTH_RADIUS_KM = 6371.0088  # mean radius (2 a + b) / 3 of WGS 84

_MOST_SECONDS = 1e12  # some 30,000 years; milliseconds given as seconds are beyond that

Float64 = NDArray[np.float64]
Cycle = Literal["day", "week", "year"]


@named("sphere_vectors")
def sphere_vectors(places: ArrayLike) -> NDArray[np.float32]:
    r"""Return unit vectors of places, whose inner product orders them by distance.

    .. math:: x = (\cos\varphi \cos\lambda, \cos\varphi \sin\lambda, \sin\varphi), \quad
              x \cdot y = \cos(d / R)

    with latitude :math:`\varphi`, longitude :math:`\lambda` and the great-circle distance d on a
    sphere of radius R: the larger the product, the nearer the place, everywhere on earth. As one
    more modality of a `FusedIndex` it makes near items rank higher.

    Parameters
    ----------
    places : array-like of shape (n, 2)
        Latitude in [-90, 90] and longitude, in degrees. A row with a NaN is a place not known.

    Returns
    -------
    ndarray of shape (n, 3), float32
        A zero row where the place is not known.

    Raises
    ------
    ValueError
        If the shape is another, a latitude is out of range or a coordinate is infinite.
    TypeError
        If `places` is not numeric.

    Notes
    -----
    A cosine near 1 says little in float32: places closer than about 3 km to a query share a score.
    `nearby` has no such limit.

    Examples
    --------
    >>> from recfuse.features import sphere_vectors
    >>> paris, london, sydney = sphere_vectors([[48.86, 2.35], [51.51, -0.13], [-33.87, 151.21]])
    >>> bool(paris @ london > paris @ sydney)
    True
    """
    return _sphere(_places(places, "places")).astype(np.float32)


@named("haversine")
def haversine(places: ArrayLike, others: ArrayLike) -> Float64:
    r"""Return great-circle distances in kilometres, of every place to every other [1]_.

    .. math:: d = 2 R \arcsin \sqrt{\sin^2\frac{\varphi_2 - \varphi_1}{2} +
              \cos\varphi_1 \cos\varphi_2 \sin^2\frac{\lambda_2 - \lambda_1}{2}},
              \quad R = 6371.0088

    Parameters
    ----------
    places, others : array-like of shape (n, 2) and (m, 2)
        Latitude in [-90, 90] and longitude, in degrees. A row with a NaN is a place not known.

    Returns
    -------
    ndarray of shape (n, m), float64
        NaN where a place is not known.

    Raises
    ------
    ValueError, TypeError
        As `sphere_vectors`.

    References
    ----------
    .. [1] R. W. Sinnott, "Virtues of the Haversine", Sky and Telescope 68(2), 1984.

    Examples
    --------
    >>> from recfuse.features import haversine
    >>> haversine([[48.8566, 2.3522]], [[51.5074, -0.1278]]).round(1)
    array([[343.6]])
    """
    a, b = _places(places, "places"), _places(others, "others")
    return _distances(a[:, None], b)


@named("nearby")
def nearby(
    places: ArrayLike, items: ArrayLike, *, radius: float, scale: float | None = None
) -> sp.csr_array:
    r"""Return the items within a radius of every place, as scores that fall with the distance.

    .. math:: s(u, i) = \exp(-d(u, i) / scale) \quad \text{where } d(u, i) \le radius

    A k-d tree finds them: nothing of size (n_places, n_items) is made. The entries serve as an
    allow-list (``allow=``) or, added to other scores, as a modality of their own.

    Parameters
    ----------
    places : array-like of shape (n_places, 2)
        Latitude in [-90, 90] and longitude, in degrees. A row with a NaN is a place not known.
    items : array-like of shape (n_items, 2)
        The same, of the items.
    radius : float
        In kilometres, at least 0.
    scale : float, optional
        In kilometres: where the score is 1/e. By default a third of the radius, or 1 for a radius
        of 0.

    Returns
    -------
    csr_array of shape (n_places, n_items), float32
        Distances by the haversine formula. A place not known has no entry.

    Raises
    ------
    ValueError
        As `sphere_vectors`, and if `radius` is negative or `scale` not above 0.
    TypeError
        If an argument is not numeric.

    Examples
    --------
    >>> from recfuse.features import nearby
    >>> cafes = [[48.8530, 2.3499], [48.8606, 2.3376], [51.5007, -0.1246]]
    >>> nearby([[48.8584, 2.2945]], cafes, radius=5, scale=2).toarray().round(3)
    array([[0.129, 0.206, 0.   ]], dtype=float32)
    """
    from scipy.spatial import cKDTree

    users, targets = _places(places, "places"), _places(items, "items")
    radius = as_float(radius, "radius")
    if not radius >= 0:
        raise ValueError(f"radius must be at least 0; got {radius}")
    scale = (radius / 3 or 1.0) if scale is None else as_float(scale, "scale")
    if not scale > 0:
        raise ValueError(f"scale must be above 0; got {scale}")
    shape = (len(users), len(targets))
    known = [np.flatnonzero(~np.isnan(x).any(axis=1)) for x in (users, targets)]
    if not (len(known[0]) and len(known[1])):
        return sp.csr_array(shape, dtype=np.float32)
    trees = [cKDTree(_sphere(x[rows])) for x, rows in zip((users, targets), known, strict=True)]
    angle = min(radius / EARTH_RADIUS_KM, np.pi)
    # The chord through the earth; a little more, so that rounding loses nobody at the rim.
    chord = 2 * np.sin(angle / 2) * (1 + 1e-9) + 1e-12
    pairs = trees[0].sparse_distance_matrix(trees[1], chord, output_type="ndarray")
    rows, columns = known[0][pairs["i"]], known[1][pairs["j"]]
    distances = _distances(users[rows], targets[columns])
    near = distances <= radius
    scores = np.exp(-distances[near] / scale).astype(np.float32)
    return sp.csr_array((scores, (rows[near], columns[near])), shape=shape)


@named("cyclic_time")
def cyclic_time(
    times: ArrayLike, cycles: Sequence[Cycle] = ("day", "week", "year")
) -> NDArray[np.float32]:
    r"""Return vectors of moments, whose inner product says how alike hour, weekday and season are.

    The phase :math:`\theta_c` runs once around during cycle c; for C cycles

    .. math:: x = \frac{1}{\sqrt C} (\cos\theta_1, \sin\theta_1, \ldots), \quad
              x \cdot y = \frac{1}{C} \sum_c \cos(\theta_c(x) - \theta_c(y))

    so that 23:00 is near 01:00, Sunday near Monday and December near January.

    Parameters
    ----------
    times : array-like of shape (n,), datetime64 or seconds since 1970-01-01
        In the local time of the user: the hour that counts is that of the clock on the wall. NaT
        and NaN are moments not known.
    cycles : sequence of {'day', 'week', 'year'}, default=('day', 'week', 'year')
        A day begins at midnight, a week on Monday, a year on the first of January; every year takes
        one turn, with 365 days or 366.

    Returns
    -------
    ndarray of shape (n, 2 * number of cycles), float32
        Of length 1; a zero row where the moment is not known.

    Raises
    ------
    ValueError
        If `times` has another shape or is infinite, or a cycle is unknown.
    TypeError
        If `times` holds neither datetimes nor numbers.

    Examples
    --------
    >>> from recfuse.features import cyclic_time
    >>> late, early, noon = cyclic_time(
    ...     ["2026-01-05T23:00", "2026-01-06T01:00", "2026-01-06T12:00"], ["day"]
    ... )
    >>> [round(float(late @ other), 2) for other in (early, noon)]
    [0.87, -0.97]
    """
    names = (cycles,) if isinstance(cycles, str) else tuple(cycles)
    for name in names:
        if name not in get_args(Cycle):
            raise ValueError(f"cycles must be of {list(get_args(Cycle))}; got {name!r}")
    if not names:
        raise ValueError("cycles must name a cycle; got none")
    moments = _moments(times)
    known = ~np.isnat(moments)
    phases = np.column_stack([_PHASES[name](moments[known]) for name in names])
    vectors = np.zeros((len(moments), 2 * len(names)), np.float32)
    angles = 2 * np.pi * phases
    circles = np.stack([np.cos(angles), np.sin(angles)], axis=2)
    vectors[known] = circles.reshape(len(phases), 2 * len(names)) / np.sqrt(len(names))
    return vectors


def _places(x: Any, name: str) -> Float64:
    array = np.asarray(x)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold degrees; got dtype {array.dtype}")
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name} must have shape (n, 2): latitude, longitude; got {array.shape}")
    degrees = array.astype(np.float64)
    if np.isinf(degrees).any():
        raise ValueError(f"{name} must be finite, or NaN where not known; got infinity")
    wrong = np.abs(degrees[:, 0]) > 90
    if wrong.any():
        raise ValueError(
            f"{name} must have latitudes in [-90, 90] in the first column; "
            f"got {degrees[wrong][0, 0]:g}"
        )
    return degrees


def _sphere(degrees: Float64) -> Float64:
    lat, lon = np.radians(degrees).T
    points = np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    return np.where(np.isnan(points).any(axis=1)[:, None], 0.0, points)


def _distances(a: Float64, b: Float64) -> Float64:
    """Return the haversine distances of places in degrees, broadcast over all but the last axis."""
    a, b = np.radians(a), np.radians(b)
    half = np.sin((b[..., 0] - a[..., 0]) / 2) ** 2 + (
        np.cos(a[..., 0]) * np.cos(b[..., 0]) * np.sin((b[..., 1] - a[..., 1]) / 2) ** 2
    )
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(half, 1))))


def _moments(times: Any) -> NDArray[np.datetime64]:
    array = np.asarray(times)
    if array.ndim != 1:
        raise ValueError(f"times must have shape (n,); got {array.shape}")
    if array.dtype.kind in "fiu":
        seconds = array.astype(np.float64)
        if (np.abs(seconds) > _MOST_SECONDS).any():
            raise ValueError(
                f"times must be within {_MOST_SECONDS:g} seconds of 1970; "
                f"got {seconds[np.abs(seconds) > _MOST_SECONDS][0]:g}"
            )
        whole = np.where(np.isnan(seconds), np.iinfo(np.int64).min, np.round(seconds * 1e3))
        return whole.astype(np.int64).astype("datetime64[ms]")
    if array.dtype.kind not in "MUO":
        raise TypeError(f"times must be datetimes or seconds; got dtype {array.dtype}")
    try:
        return array.astype("datetime64[ms]")
    except (ValueError, TypeError) as error:
        raise ValueError(f"times must be datetimes or seconds; got {error}") from error


def _share(moments: NDArray[np.datetime64], start: Any, length: Any) -> Float64:
    return np.asarray((moments - start) / length, np.float64)


def _day(moments: NDArray[np.datetime64]) -> Float64:
    return _share(moments, moments.astype("datetime64[D]"), np.timedelta64(1, "D"))


def _week(moments: NDArray[np.datetime64]) -> Float64:
    monday = np.datetime64("1970-01-05")
    return _share(moments, monday, np.timedelta64(7, "D")) % 1


def _year(moments: NDArray[np.datetime64]) -> Float64:
    year = moments.astype("datetime64[Y]")
    first, following = (y.astype("datetime64[D]") for y in (year, year + 1))
    return _share(moments, first, following - first)


_PHASES = {"day": _day, "week": _week, "year": _year}
