"""Generated interactions and item vectors that share one planted structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recfuse._inputs import as_rng
from recfuse.interactions import Interactions

__all__ = ["Synthetic", "synthetic"]

_CHUNK = 1 << 20  # events drawn at a time: the tables of a chunk stay small beside the result
_YEAR = 365 * 86_400
_EPOCH = 1_700_000_000  # any fixed second; the data must not depend on the clock


@dataclass(frozen=True, eq=False)
class Synthetic:
    """Generated data: say so in every number that you publish.

    Attributes
    ----------
    interactions : Interactions
        Distinct user-item pairs, ordered by user, then item; values are ratings from 1 to 5;
        timestamps fall within one year; labels are the positions.
    items : dict of str to ndarray of shape (n_items, dim), float32
        Per modality one vector per item, of length 1; zeros where it is missing.
    present : dict of str to ndarray of shape (n_items,), bool
        Which items have the modality.
    user_topics, item_topics : ndarray of shape (n, n_topics), float32
        What was planted: each user's shares of the topics, each item's affinity to them.
    """

    interactions: Interactions
    items: dict[str, NDArray[np.float32]]
    present: dict[str, NDArray[np.bool_]]
    user_topics: NDArray[np.float32]
    item_topics: NDArray[np.float32]


def synthetic(
    n_users: int,
    n_items: int,
    nnz: int,
    *,
    random_state: int | np.random.Generator | None = None,
    n_topics: int = 16,
    modalities: Mapping[str, int] | None = None,
    missing: float = 0.1,
    noise: float = 0.5,
    user_exponent: float = 0.6,
    item_exponent: float = 0.8,
) -> Synthetic:
    """Draw interactions with long tails and a low-rank preference, and item vectors that show it.

    An event's user is drawn by activity, a topic by the user's shares, an item by popularity times
    its affinity to the topic: the probability matrix has rank `n_topics`. Item vectors are random
    projections of the affinities plus noise, so that content predicts behaviour, imperfectly.

    Parameters
    ----------
    n_users, n_items, nnz : int
        Sizes; exactly `nnz` distinct pairs, at most half of all.
    random_state : int, Generator or None
        The same seed gives the same data.
    n_topics : int, default=16
    modalities : mapping of str to int, optional
        Dimension of each modality; ``{"text": 64, "image": 32}`` by default.
    missing : float, default=0.1
        Share of items without a modality, drawn per modality.
    noise : float, default=0.5
        Length of the noise in an item vector relative to the signal.
    user_exponent, item_exponent : float
        Activity and popularity fall as rank to the power of minus this.

    Returns
    -------
    Synthetic

    Raises
    ------
    ValueError
        If a size is below 1, `nnz` is more than half of all pairs, or a share is outside its range.

    Examples
    --------
    >>> from recfuse.datasets import synthetic
    >>> data = synthetic(100, 50, 1000, random_state=0)
    >>> data.interactions
    Interactions(1000 events, 100 users, 50 items, with timestamps)
    >>> {name: vectors.shape for name, vectors in data.items.items()}
    {'text': (50, 64), 'image': (50, 32)}
    """
    dims = {"text": 64, "image": 32} if modalities is None else dict(modalities)
    sizes = {"n_users": n_users, "n_items": n_items, "nnz": nnz, "n_topics": n_topics}
    sizes.update({f"modalities[{name!r}]": dim for name, dim in dims.items()})
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"synthetic: {name} must be at least 1; got {size}")
    if nnz > n_users * n_items // 2:
        raise ValueError(
            f"synthetic: nnz must be at most half of n_users * n_items; got {nnz} of "
            f"{n_users * n_items}"
        )
    if not 0 <= missing <= 1:
        raise ValueError(f"synthetic: missing must be in [0, 1]; got {missing}")
    if not noise >= 0:
        raise ValueError(f"synthetic: noise must be at least 0; got {noise}")
    rng = as_rng(random_state)
    activity = _long_tail(rng, n_users, user_exponent)
    popularity = _long_tail(rng, n_items, item_exponent)
    user_topics = rng.dirichlet(np.full(n_topics, 0.2), n_users).astype(np.float32)
    item_topics = np.exp(1.5 * rng.standard_normal((n_items, n_topics), np.float32))
    pairs = _distinct_pairs(rng, nnz, activity, popularity, user_topics, item_topics)
    users, items = np.divmod(pairs, n_items)
    interactions = Interactions(
        users,
        items,
        _ratings(rng, users, items, user_topics, item_topics),
        rng.integers(_EPOCH, _EPOCH + _YEAR, nnz),
        np.arange(n_users),
        np.arange(n_items),
    )
    vectors, present = {}, {}
    for name, dim in dims.items():
        present[name] = rng.random(n_items) >= missing
        vectors[name] = _vectors(rng, np.log(item_topics), dim, noise) * present[name][:, None]
    return Synthetic(interactions, vectors, present, user_topics, item_topics)


def _long_tail(rng: np.random.Generator, n: int, exponent: float) -> NDArray[np.float64]:
    weights = rng.permutation(np.arange(1, n + 1, dtype=np.float64) ** -exponent)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _distinct_pairs(
    rng: np.random.Generator,
    nnz: int,
    activity: NDArray[np.float64],
    popularity: NDArray[np.float64],
    user_topics: NDArray[np.float32],
    item_topics: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Return `nnz` distinct pairs as user * n_items + item, sorted."""
    n_users, n_items = len(activity), len(popularity)
    shares = user_topics.astype(np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    weights = popularity[:, None] * item_topics
    items_to = np.cumsum(weights / weights.sum(axis=0), axis=0)
    pairs = np.empty(0, np.int64)
    attempt = 0
    while len(pairs) < nnz:
        n = (nnz - len(pairs)) * 5 // 4 + 16
        if attempt < 8:
            drawn = _preferred_pairs(rng, n, activity, shares, items_to)
        else:  # heavy users have met all that they like: the rest is drawn evenly
            drawn = [rng.integers(n_users * n_items, size=n)]
        pairs = np.sort(np.concatenate([pairs, *drawn]))
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        attempt += 1
    surplus = rng.choice(len(pairs), len(pairs) - nnz, replace=False, shuffle=False)
    return np.delete(pairs, surplus)


def _preferred_pairs(
    rng: np.random.Generator,
    n: int,
    activity: NDArray[np.float64],
    shares: NDArray[np.float64],
    items_to: NDArray[np.float64],
) -> list[NDArray[np.int64]]:
    """Return `n` pairs, one array per topic; a multinomial says how often each user meets each."""
    n_items = len(items_to)
    meetings = rng.multinomial(rng.multinomial(n, activity), shares)
    pairs = []
    for topic, per_user in enumerate(meetings.T):
        cumulative = np.ascontiguousarray(items_to[:, topic])
        points = rng.random(int(per_user.sum())) * cumulative[-1]
        # A point may round up to the very end of the table.
        items = np.minimum(np.searchsorted(cumulative, points, side="right"), n_items - 1)
        users = np.repeat(np.arange(len(activity), dtype=np.int64), per_user)
        pairs.append(users * n_items + items)
    return pairs


def _ratings(
    rng: np.random.Generator,
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    user_topics: NDArray[np.float32],
    item_topics: NDArray[np.float32],
) -> NDArray[np.float32]:
    affinity = np.empty(len(users), np.float32)
    logs = np.log(item_topics)
    for start in range(0, len(users), _CHUNK):
        part = slice(start, start + _CHUNK)
        affinity[part] = np.einsum("nt,nt->n", user_topics[users[part]], logs[items[part]])
    affinity += 0.5 * rng.standard_normal(len(users), np.float32)
    return np.clip(np.rint(3 + affinity), 1, 5).astype(np.float32, copy=False)


def _vectors(
    rng: np.random.Generator, topics: NDArray[np.float32], dim: int, noise: float
) -> NDArray[np.float32]:
    signal = topics @ rng.standard_normal((topics.shape[1], dim), np.float32)
    signal /= np.sqrt(topics.shape[1])
    vectors = signal + np.float32(noise) * rng.standard_normal(signal.shape, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-12))
    return unit
